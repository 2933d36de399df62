from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from reconvene_agent.core.architectures import ARCHITECTURES, Kind
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.segments import activation_bytes, find_segments, saved_activations
from reconvene_agent.worker.models.tracing import Traced, trace
from support.architectures import BLOCKS, Recipe, recipes_of

SHAPES: dict[Kind, tuple[int, ...]] = {"image": (3, 32, 32), "window": (6, 64), "features": (24,)}


def traced(model: nn.Module, shape: tuple[int, ...]) -> Traced:
    with torch.device("meta"):
        return trace(model.to("meta").eval(), shape)


def check(found: Traced) -> None:
    """Look whether the cuts are where nothing passes by, and whether what is saved is what it is said to be."""
    segments = find_segments(found)
    nodes = list(found.graph.graph.nodes)
    places = [index for index, node in enumerate(nodes) if node.name in segments.cuts]
    assert [nodes[place].name for place in places] == list(segments.cuts)
    for place in places:
        later = nodes[place + 1 :]
        passing = {each for node in later for each in node.all_input_nodes if each not in later and each.op != "get_attr"}
        assert passing == {nodes[place]}
    sizes = [activation_bytes(found, node) for node in nodes]
    ends = [-1, *places, len(nodes) - 1]
    largest = max(sum(sizes[one + 1 : other + 1]) for one, other in itertools.pairwise(ends))
    assert segments.saved == sum(sizes[place] for place in places) + largest
    assert segments.saved <= sum(sizes) == saved_activations(found)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_built_in_model_can_be_cut(name: str) -> None:
    spec = ModelSpec(name, SHAPES[ARCHITECTURES[name].input], 5)
    found = traced(registry.build(spec), spec.input)
    check(found)
    assert find_segments(found).saved < 0.9 * saved_activations(found)


def test_a_deep_model_is_cut_to_a_fraction() -> None:
    found = traced(registry.build(ModelSpec("resnet56", (3, 32, 32), 10)), (3, 32, 32))
    assert find_segments(found).saved < saved_activations(found) / 5


@settings(max_examples=25, deadline=None)
@given(recipes_of(*BLOCKS))
def test_random_models_are_cut_where_nothing_passes_by(recipe: Recipe) -> None:
    with torch.device("meta"):
        check(traced(recipe.build(recipe.spec), recipe.spec.input))


class Through(nn.Module):
    """Hands its input past everything."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x


def test_a_model_with_something_that_passes_everything_is_not_cut() -> None:
    found = traced(Through(), (3, 8, 8))
    assert find_segments(found).cuts == ()
    assert find_segments(found).saved == saved_activations(found) == 4 * 3 * 64 * 9
