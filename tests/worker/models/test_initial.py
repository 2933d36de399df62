from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reconvene_agent.core.errors import BundleError, ErrorCode
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


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(4),
        lambda: nn.LayerNorm(4),
        lambda: nn.LayerNorm(4, elementwise_affine=False),
        lambda: nn.GroupNorm(2, 4),
    ],
    ids=["BatchNorm1d", "LayerNorm", "LayerNorm without weights", "GroupNorm"],
)
def test_every_norm_begins_as_the_identity(norm: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        ours = norm()
    initial.materialize(ours, seed=0)
    theirs = norm().state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


def test_a_one_dimensional_convolution_is_drawn_like_any_other() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv1d(16, 64, 5))
    initial.materialize(model, seed=3)
    weight = model.get_parameter("0.weight")
    assert torch.equal(weight, initial.kaiming_normal("0.weight", (64, 16, 5), 3))
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 80), rel=0.05)
    assert torch.all(model.get_parameter("0.bias") == 0)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(1, 50, 40))
        self.more = nn.ParameterList([torch.empty(3)])


def test_a_parameter_of_its_own_is_drawn_from_seed_and_name() -> None:
    def drawn(seed: int, wrapped: bool = False) -> Tensor:
        with torch.device("meta"):
            model = nn.Sequential(Embedded()) if wrapped else Embedded()
        initial.materialize(model, seed)
        assert not any(parameter.is_meta for parameter in model.parameters())
        return model.get_parameter("0.position" if wrapped else "position")

    assert drawn(1).std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(drawn(1), initial.embedding("position", (1, 50, 40), 1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1), drawn(1, wrapped=True)), "its name is another"


def test_no_weight_is_ever_held_twice() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(300, 200), nn.BatchNorm1d(200), nn.Linear(200, 100))
    sizes: list[int] = []

    class Counting(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function in (torch.empty, torch.zeros, torch.ones, torch.clone, Tensor.clone):
                sizes.append(result.numel())
            return result

    with Counting():
        initial.materialize(model, seed=0)
    assert sum(sizes) == sum(tensor.numel() for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.PReLU, "PReLU"), (lambda: nn.MultiheadAttention(4, 2), "MultiheadAttention"), (lambda: nn.Embedding(3, 4), "Embedding")],
)
def test_a_layer_whose_initial_weights_are_not_known_is_named(layer: Callable[[], nn.Module], name: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), layer())
    with pytest.raises(BundleError, match=f"1: no initial weights are known for a {name}") as caught:
        initial.materialize(model, seed=0)
    assert caught.value.code is ErrorCode.BAD_BUNDLE


class Tabled(nn.Module):
    def __init__(self, device: str | None) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(3.0, device=device), persistent=False)


def test_a_buffer_has_its_own_values_or_none_at_all() -> None:
    with torch.device("meta"):
        lost, kept = nn.Sequential(Tabled(None)), nn.Sequential(Tabled("cpu"))
    with pytest.raises(BundleError, match="0: no initial values are known for the buffer table"):
        initial.materialize(lost, seed=0)
    assert initial.materialize(kept, seed=0).get_buffer("0.table").tolist() == [0, 1, 2]
