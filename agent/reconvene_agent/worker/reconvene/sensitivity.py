"""Pruning Sensitivity Evaluator (PSE): which layers the criterion wants to keep.

A layer that is less sparse than the average is sensitive, one that is sparser is resilient (Eccles et al. 2024,
arXiv 2404.16877). Layers that share their channels are judged together, by the group's density.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from reconvene_agent.core.options import Average
from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.preprocessor import LayerDensity

Verdict = Literal["sensitive", "resilient"]


def average_density(layers: Sequence[LayerDensity], average: Average) -> float:
    """Return the density that separates the two: the mean over layers, or over all their weights (= 1 − sparsity)."""
    if average == "mean":
        return sum(layer.density for layer in layers) / len(layers)
    return sum(layer.kept for layer in layers) / sum(layer.weights for layer in layers)


def group_density(group: ChannelGroup, layers: dict[str, LayerDensity]) -> float | None:
    """Return the density of a group's producers taken together, or None when none of them is prunable."""
    producers = [layers[name] for name in group.producers if name in layers]
    if not producers:
        return None
    return sum(layer.kept for layer in producers) / sum(layer.weights for layer in producers)


def evaluate(layers: Sequence[LayerDensity], groups: Sequence[ChannelGroup], average: Average) -> dict[str, Verdict]:
    """Return the verdict on every prunable layer. One exactly at the average is sensitive: cutting it would gain nothing."""
    by_name = {layer.name: layer for layer in layers}
    threshold = average_density(layers, average)
    own = {layer.name: layer.density for layer in layers}
    for group in groups:
        shared = group_density(group, by_name)
        if shared is not None:
            own.update({name: shared for name in group.producers if name in own})
    return {name: "resilient" if density < threshold * (1 - 1e-9) else "sensitive" for name, density in own.items()}
