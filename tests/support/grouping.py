"""Models for tests of channel groups, and how to look at the groups of one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import postprocessor
from reconvene_agent.worker.reconvene.groups import ChannelGroup, Side, Structure, find_groups

INPUT = (3, 8, 8)


def structure_of(builder: Callable[[], nn.Module], input_shape: tuple[int, ...] = INPUT) -> Structure:
    with torch.device("meta"):
        model = builder().eval()
    return find_groups(trace(model, input_shape))


def found(builder: Callable[[], nn.Module], input_shape: tuple[int, ...] = INPUT) -> dict[str, ChannelGroup]:
    """Return the groups of a model on the meta device by each of their producers."""
    return {name: group for group in structure_of(builder, input_shape).groups for name in group.producers}


def followers(structure: Structure, producer: str) -> set[tuple[str, str, int]]:
    """Return every (layer, side, entries) that follows the channels of a layer."""
    numbers = {index for index, group in enumerate(structure.groups) if producer in group.producers}
    return {(side.layer, side.side, entries) for side in structure.sides for number, entries in side.parts if number in numbers}


def rows(builder: Callable[[], nn.Module], input_shape: tuple[int, ...] = INPUT) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """Return every side of every layer as the names of its groups with their entries."""
    structure = structure_of(builder, input_shape)
    return {
        (side.layer, side.side): [(structure.groups[number].name, times) for number, times in side.parts]
        for side in structure.sides
    }


def halved_runs(builder: Callable[[], nn.Module], input_shape: tuple[int, ...] = INPUT) -> nn.Module:
    """Narrow every group that may change, in a real model, run it forward and backward, and return the halved one.

    It is done once more with widths that differ, which finds groups that should have been one.
    """
    structure = structure_of(builder, input_shape)
    uneven = [group.width - 1 - index % 3 for index, group in enumerate(structure.groups)]
    halves = [group.width // 2 for group in structure.groups]
    for wanted in (structure.widths, uneven, halves):
        widths = [group.width if group.frozen else max(1, width) for group, width in zip(structure.groups, wanted, strict=True)]
        with torch.device("meta"):
            narrow = postprocessor.resize(builder().eval(), structure, widths)
        for side in structure.sides:
            assert actual(narrow, side) == side.size(widths), side
        real = narrow.to_empty(device="cpu").eval()
        with torch.no_grad():
            for tensor in (*real.parameters(), *real.buffers()):
                tensor.fill_(0.5)
        answer = real(torch.ones(2, *input_shape))
        assert answer.shape[0] == 2
        answer.sum().backward()
    return real


def actual(model: nn.Module, side: Side) -> int:
    """Return how many entries this side of a layer of the model has."""
    if side.side.isdigit():
        return model.get_parameter(side.layer).shape[int(side.side)]
    layer = model.get_submodule(side.layer)
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[0]
    names = {
        "in": ("in_channels", "in_features"),
        "out": ("out_channels", "out_features"),
        "both": ("num_features", "num_channels"),
        "groups": ("groups", "num_groups"),
    }
    return next(getattr(layer, name) for name in names[side.side] if hasattr(layer, name))


class Classified(nn.Module):
    """A body between a first convolution of 8 channels and a classifier, which is what most models here differ in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.second(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(self.first(x)).mean((2, 3)))
