from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reconvene_agent.worker.models import initial, registry
from support.models import TINY_RESNET


def test_a_weight_is_drawn_from_kaimings_normal_distribution() -> None:
    weight = initial.kaiming_normal("conv.weight", (256, 64, 3, 3), seed=1)
    expected = math.sqrt(2 / (64 * 9))
    assert weight.dtype is torch.float32
    assert weight.std().item() == pytest.approx(expected, rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=0.01 * expected)


def test_a_weight_depends_on_seed_and_name_and_on_nothing_else() -> None:
    shape = (4, 3, 3, 3)
    one = initial.kaiming_normal("a", shape, 1)
    torch.rand(5)
    assert torch.equal(one, initial.kaiming_normal("a", shape, 1))
    assert not torch.equal(one, initial.kaiming_normal("b", shape, 1))
    assert not torch.equal(one, initial.kaiming_normal("a", shape, 2))


def test_a_seed_that_was_shipped_once_stands_for_the_same_weights_for_ever() -> None:
    few = initial.kaiming_normal("features.conv1_1.weight", (2, 1, 1, 2), 2**53 - 1).flatten()
    assert few.tolist() == pytest.approx([-0.7336661, 0.3586420, -0.6259502, -0.5195183], rel=1e-5)
    # From 16 numbers on, torch draws them in another way.
    many = initial.kaiming_normal("conv.weight", (16, 3, 3, 3), 7).flatten()
    assert many[[0, 100, 431]].tolist() == pytest.approx([-0.3914143, -0.4356668, 0.1360193], rel=1e-4)


def test_biases_are_zero_and_batch_norms_the_identity() -> None:
    model = initial.materialize(registry.build(TINY_RESNET), seed=0)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
            assert torch.all(module.running_mean == 0)
            assert torch.all(module.running_var == 1)
            assert module.num_batches_tracked == 0
    assert torch.all(model.get_parameter("classifier.bias") == 0)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_every_kind_of_batch_norm_is_given_memory(affine: bool, track: bool) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.BatchNorm2d(3, affine=affine, track_running_stats=track))
    assert initial.materialize(model, seed=0)(torch.ones(2, 3, 2, 2)).shape == (2, 3, 2, 2)


def test_a_layer_whose_initial_weights_are_not_known_is_named() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.PReLU())
    with pytest.raises(TypeError, match="1: no initial weights are known for a PReLU"):
        initial.materialize(model, seed=0)
