from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import postprocessor
from reconvene_agent.worker.reconvene.groups import ChannelGroup, Side, Structure, find_groups
from reconvene_agent.worker.reconvene.method import narrow
from support.models import TINY_RESNET, designed


def resized(layer: nn.Module, before: int, after: int, *sides: str, entries: int = 1) -> nn.Module:
    """Resize some sides of one layer, alone in a model, all of which follow one group."""
    group = ChannelGroup("group", before, 1, (), "")
    structure = Structure((group,), tuple(Side("layer", side, ((0, entries),)) for side in sides))
    return postprocessor.resize(nn.ModuleDict({"layer": layer}), structure, [after]).get_submodule("layer")


def shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}


def test_a_convolution_is_resized_on_either_side_with_its_bias() -> None:
    with torch.device("meta"):
        assert shapes(resized(nn.Conv2d(8, 6, 3), 6, 2, "out")) == {"weight": (2, 8, 3, 3), "bias": (2,)}
        assert shapes(resized(nn.Conv2d(8, 6, 3), 8, 5, "in")) == {"weight": (6, 5, 3, 3), "bias": (6,)}
        assert shapes(resized(nn.Conv2d(8, 6, 1, bias=False), 6, 2, "out")) == {"weight": (2, 8, 1, 1)}


def test_a_depthwise_convolution_keeps_one_filter_for_each_channel() -> None:
    with torch.device("meta"):
        layer = resized(nn.Conv2d(8, 8, 3, groups=8), 8, 3, "in", "out", "groups")
    assert isinstance(layer, nn.Conv2d)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (3, 3, 3)
    assert shapes(layer) == {"weight": (3, 1, 3, 3), "bias": (3,)}


def test_a_linear_layer_has_as_many_inputs_as_channels_times_places() -> None:
    with torch.device("meta"):
        layer = resized(nn.Linear(8 * 16, 5), 8, 3, "in", entries=16)
        assert shapes(layer) == {"weight": (5, 48), "bias": (5,)}
        assert shapes(resized(nn.Linear(8, 6), 6, 2, "out")) == {"weight": (2, 8), "bias": (2,)}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_a_batch_norm_stays_the_kind_it_was(affine: bool, track: bool) -> None:
    with torch.device("meta"):
        layer = resized(nn.BatchNorm2d(8, affine=affine, track_running_stats=track), 8, 3, "both")
        assert shapes(layer) == shapes(nn.BatchNorm2d(3, affine=affine, track_running_stats=track))
    real = nn.ModuleDict({"layer": layer}).to_empty(device="cpu").get_submodule("layer")
    assert real.train()(torch.ones(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_a_group_that_keeps_its_width_keeps_its_very_tensors() -> None:
    layer = nn.Conv2d(8, 6, 3)
    weight = layer.weight
    assert resized(layer, 6, 6, "out").weight is weight


def test_norms_over_channels_are_resized_with_them() -> None:
    with torch.device("meta"):
        layer = resized(nn.LayerNorm(8), 8, 3, "both")
        assert shapes(layer) == shapes(nn.LayerNorm(3))
        assert shapes(resized(nn.BatchNorm1d(8), 8, 3, "both")) == shapes(nn.BatchNorm1d(3))
    assert isinstance(layer, nn.LayerNorm)
    assert layer.normalized_shape == (3,)


def test_a_parameter_of_the_models_own_is_resized_in_its_dimension() -> None:
    model = nn.Module()
    model.position = nn.Parameter(torch.empty(1, 5, 8, device="meta"))
    group = ChannelGroup("group", 8, 1, (), "")
    postprocessor.resize(model, Structure((group,), (Side("position", "2", ((0, 1),)),)), [3])
    assert model.position.shape == (1, 5, 3)


def test_a_layer_behind_a_concatenation_has_the_inputs_of_all_its_groups() -> None:
    groups = tuple(ChannelGroup(name, width, 1, (), "") for name, width in (("a", 8), ("b", 4)))
    structure = Structure(groups, (Side("layer", "in", ((0, 1), (1, 2), (0, 1))),))
    with torch.device("meta"):
        model = postprocessor.resize(nn.ModuleDict({"layer": nn.Conv2d(24, 6, 1)}), structure, [3, 2])
    assert shapes(model.get_submodule("layer")) == {"weight": (6, 10, 1, 1), "bias": (6,)}


def test_names_and_numbers_of_widths_tell_each_other() -> None:
    structure = find_groups(trace(registry.build(TINY_RESNET), TINY_RESNET.input))
    widths = tuple(
        group.width if group.frozen or not group.producers else index + 1 for index, group in enumerate(structure.groups)
    )
    assert structure.numbered(structure.named(widths)) == widths


@pytest.mark.parametrize(
    "change",
    [
        {"conv": None},
        {"stages.0.0.conv2": 7},
        {"stages.0.1.conv1": 0},
        {"stages.0.1.conv1": 17},
        {"classifier": 4},
    ],
    ids=["missing", "no group of its own", "nothing left", "wider than dense", "fewer classes"],
)
def test_widths_that_do_not_fit_the_architecture_are_refused(change: dict[str, int | None]) -> None:
    widths = {**designed(TINY_RESNET, 0.5).widths, **change}
    with pytest.raises(BundleError, match="the architecture") as caught:
        narrow(TINY_RESNET, {name: width for name, width in widths.items() if width is not None})
    assert caught.value.code is ErrorCode.BAD_BUNDLE


def test_a_mask_that_would_keep_everything_is_none_and_none_empties_a_layer() -> None:
    model = nn.ModuleDict({name: nn.Conv2d(2, 4, 1) for name in "abcde"})
    assert postprocessor.mask_sizes({"a": 7, "b": 8, "c": 9, "d": 0, "e": 3}, model) == {"a": 7, "d": 4, "e": 4}
