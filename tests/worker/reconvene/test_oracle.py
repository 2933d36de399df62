"""The channel groups against those of Torch-Pruning (Fang et al. 2023, arXiv 2301.12900), entry by entry."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import torch_pruning
from hypothesis import example, given, settings
from torch import nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene.groups import Side, Structure, find_groups
from support import architectures
from support.architectures import BLOCKS, Recipe, recipes_of

Coupled = dict[tuple[str, str], frozenset[int]]
"""Which entries of which sides of which layers go with one channel."""

# Not among them: grouped convolutions and group-norm, of which Torch-Pruning drops the same channel in every group where we
# drop whole groups; halves of one convolution and shuffled channels, whose two parts it does not take for one; images made of
# tokens, of whose places it loses count.
BLOCKS_OF_BOTH = (
    architectures.Plain,
    architectures.Residual,
    architectures.Separable,
    architectures.Inverted,
    architectures.Squeezed,
    architectures.Twice,
    architectures.Concatenated,
    architectures.Dense,
    architectures.Pooled,
)


def ours(structure: Structure, number: int, thing: int) -> Coupled:
    """Return what goes with one thing of a group by our reading."""
    coupled: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    depthwise = {side.layer for side in structure.sides if side.side == "groups"}
    for side in structure.sides:
        start = 0
        for part, entries in side.parts:
            if part == number:
                first = start + thing * entries
                name = "both" if side.layer in depthwise else side.side
                coupled[side.layer, name].update(range(first, first + entries))
            start += structure.groups[part].width * entries
    return {key: frozenset(entries) for key, entries in coupled.items()}


def theirs(graph: torch_pruning.DependencyGraph, model: nn.Module, producer: str, outputs: frozenset[int]) -> Coupled:
    """Return what goes with some outputs of a layer by Torch-Pruning's reading."""
    names = {id(part): name for name, part in (*model.named_modules(), *model.named_parameters())}
    layer = model.get_submodule(producer)
    linear = isinstance(layer, nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    coupled: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for dependency, entries in graph.get_pruning_group(layer, prune, idxs=sorted(outputs)):
        target = dependency.target.module
        # Operations without weights, such as an addition, are members of their groups as well.
        if id(target) not in names:
            continue
        if isinstance(target, nn.Parameter):
            side = str(dependency.target.pruning_dim)
        elif isinstance(target, (nn.Conv1d, nn.Conv2d, nn.Linear)) and getattr(target, "groups", 1) == 1:
            side = "in" if dependency.handler.__name__ == "prune_in_channels" else "out"
        else:
            side = "both"
        coupled[names[id(target)], side].update(entries)
    return {key: frozenset(entries) for key, entries in coupled.items()}


def compare(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Compare a first and a last thing of every group that may change, and return how many groups there were.

    ``model`` lies on the meta device.
    """
    structure = find_groups(trace(model, input_shape))
    real = model.to_empty(device="cpu").eval()
    raw = [(real.get_parameter(side.layer), int(side.side)) for side in structure.sides if free_parameter(structure, side)]
    graph = torch_pruning.DependencyGraph().build_dependency(
        real, torch.zeros(1, *input_shape), unwrapped_parameters=raw, verbose=False
    )
    free = [(number, group) for number, group in enumerate(structure.groups) if group.producers and not group.frozen]
    for number, group in free:
        for thing in (0, group.width - 1):
            expected = ours(structure, number, thing)
            producer = group.producers[0]
            assert theirs(graph, real, producer, expected[producer, "out"]) == expected, (producer, thing)
    return len(free)


def free_parameter(structure: Structure, side: Side) -> bool:
    return side.side.isdigit() and any(not structure.groups[number].frozen for number, _ in side.parts)


@pytest.mark.parametrize(
    ("name", "input_shape", "groups"),
    [
        ("vgg16", (3, 32, 32), 13),
        ("resnet20", (3, 16, 16), 3 + 9),
        ("resnet18", (3, 16, 16), 4 + 8),
        ("mobilenet_v2", (3, 16, 16), 1 + 16 + 7 + 1),
        ("mlp", (12,), 3),
        ("convnet1d", (6, 32), 5),
        ("vit_tiny", (3, 8, 8), 1 + 12 * 2),
    ],
)
def test_the_built_in_models(name: str, input_shape: tuple[int, ...], groups: int) -> None:
    spec = ModelSpec(name, input_shape, 5)
    assert compare(registry.build(spec), spec.input) == groups


@settings(max_examples=25)
@example(Recipe(tuple((BLOCKS.index(kind), 8) for kind in BLOCKS_OF_BOTH), flatten=True))
@given(recipes_of(*BLOCKS_OF_BOTH))
def test_random_models(recipe: Recipe) -> None:
    # Torch-Pruning does not count the model's own input in a concatenation, so a convolution comes first.
    first = (BLOCKS.index(architectures.Plain), 8)
    with torch.device("meta"):
        model = Recipe((first, *recipe.blocks), recipe.flatten).build(recipe.spec).eval()
    assert compare(model, recipe.spec.input) > len(recipe.blocks) // 2


@pytest.mark.parametrize("kind", [architectures.Dense, architectures.Concatenated], ids=["densenet", "inception"])
def test_networks_of_concatenations(kind: type[nn.Module]) -> None:
    plain, pooled, block = (BLOCKS.index(found) for found in (architectures.Plain, architectures.Pooled, kind))
    recipe = Recipe(((plain, 16), (block, 24), (pooled, 16), (block, 24), (block, 10)), flatten=True)
    with torch.device("meta"):
        model = recipe.build(recipe.spec).eval()
    assert compare(model, recipe.spec.input) == 2 + 3 * (3 if kind is architectures.Dense else 4)
