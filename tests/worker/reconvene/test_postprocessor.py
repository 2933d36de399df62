from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import postprocessor
from reconvene_agent.worker.reconvene.groups import ChannelGroup, Slot, find_groups
from reconvene_agent.worker.reconvene.method import narrow
from support.models import TINY_RESNET, designed


def resized(layer: nn.Module, slot: Slot, before: int, after: int) -> nn.Module:
    """Resize one layer, alone in a model, by one slot."""
    group = ChannelGroup(before, (), (slot,), "")
    return postprocessor.resize(nn.ModuleDict({"layer": layer}), [group], [after]).get_submodule("layer")


def shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}


def test_a_convolution_is_resized_on_either_side_with_its_bias() -> None:
    with torch.device("meta"):
        assert shapes(resized(nn.Conv2d(8, 6, 3), Slot("layer", "out"), 6, 2)) == {"weight": (2, 8, 3, 3), "bias": (2,)}
        assert shapes(resized(nn.Conv2d(8, 6, 3), Slot("layer", "in"), 8, 5)) == {"weight": (6, 5, 3, 3), "bias": (6,)}
        assert shapes(resized(nn.Conv2d(8, 6, 1, bias=False), Slot("layer", "out"), 6, 2)) == {"weight": (2, 8, 1, 1)}


def test_a_depthwise_convolution_keeps_one_filter_for_each_channel() -> None:
    with torch.device("meta"):
        layer = resized(nn.Conv2d(8, 8, 3, groups=8), Slot("layer", "both"), 8, 3)
    assert isinstance(layer, nn.Conv2d)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (3, 3, 3)
    assert shapes(layer) == {"weight": (3, 1, 3, 3), "bias": (3,)}


def test_a_linear_layer_has_as_many_inputs_as_channels_times_places() -> None:
    with torch.device("meta"):
        layer = resized(nn.Linear(8 * 16, 5), Slot("layer", "in", 16), 8, 3)
        assert shapes(layer) == {"weight": (5, 48), "bias": (5,)}
        assert shapes(resized(nn.Linear(8, 6), Slot("layer", "out"), 6, 2)) == {"weight": (2, 8), "bias": (2,)}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_a_batch_norm_stays_the_kind_it_was(affine: bool, track: bool) -> None:
    with torch.device("meta"):
        layer = resized(nn.BatchNorm2d(8, affine=affine, track_running_stats=track), Slot("layer", "both"), 8, 3)
        assert shapes(layer) == shapes(nn.BatchNorm2d(3, affine=affine, track_running_stats=track))
    real = nn.ModuleDict({"layer": layer}).to_empty(device="cpu").get_submodule("layer")
    assert real.train()(torch.ones(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_a_group_that_keeps_its_width_keeps_its_very_tensors() -> None:
    layer = nn.Conv2d(8, 6, 3)
    weight = layer.weight
    assert resized(layer, Slot("layer", "out"), 6, 6).weight is weight


def test_the_widths_of_layers_and_of_groups_tell_each_other() -> None:
    groups = find_groups(trace(registry.build(TINY_RESNET), TINY_RESNET.input))
    widths = tuple(group.width if group.frozen else index + 1 for index, group in enumerate(groups))
    layers = postprocessor.layer_widths(groups, widths)
    assert layers["stages.0.0.conv2"] == layers["stages.0.2.conv2"] == layers["conv"]
    assert postprocessor.group_widths(groups, layers) == widths


@pytest.mark.parametrize(
    "change",
    [
        {"conv": None},
        {"conv": 7},
        {"stages.0.1.conv1": 0},
        {"stages.0.1.conv1": 17},
        {"classifier": 4},
    ],
    ids=["missing", "at odds with its group", "nothing left", "wider than dense", "fewer classes"],
)
def test_widths_that_do_not_fit_the_architecture_are_refused(change: dict[str, int | None]) -> None:
    widths = {**designed(TINY_RESNET, 0.5).widths, **change}
    with pytest.raises(BundleError, match="do not fit the architecture") as caught:
        narrow(TINY_RESNET, {name: width for name, width in widths.items() if width is not None})
    assert caught.value.code is ErrorCode.BAD_BUNDLE


def test_a_mask_that_would_keep_everything_is_none() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(2, 4, 1), "b": nn.Conv2d(2, 4, 1), "c": nn.Conv2d(2, 4, 1)})
    assert postprocessor.mask_sizes({"a": 7, "b": 8, "c": 9}, model) == {"a": 7}
