"""Model Pre-Processor: the dense model at initialisation, scored by an unstructured criterion and cut globally.

Eccles et al. 2024 (arXiv 2404.16877), section III. The prunable weights are those of convolutions and linear layers; those
of the layer that gives the answer are never cut. Before anything is scored, a width multiplier may make the dense model
uniformly narrower (Howard et al. 2017, arXiv 1704.04861, section 3.3): that one answers latency, sparsity answers memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from reconvene_agent.core.errors import BundleError
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker.models.layers import WEIGHTED
from reconvene_agent.worker.reconvene.criteria import CRITERIA
from reconvene_agent.worker.reconvene.criteria.subject import Subject
from reconvene_agent.worker.reconvene.groups import Structure
from reconvene_agent.worker.reconvene.widths import rounded


@dataclass(frozen=True)
class LayerDensity:
    """One prunable layer after the cut: how many of its ``weights`` are ``kept``."""

    name: str
    weights: int
    kept: int

    @property
    def density(self) -> float:
        return self.kept / self.weights


def prunable(dense: nn.Module, structure: Structure) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that may be cut, by layer name, in the model's order.

    Raises:
        BundleError: the model has none.
    """
    answers = structure.answers()
    shapes = {
        name: tuple(layer.weight.shape)
        for name, layer in dense.named_modules()
        if isinstance(layer, WEIGHTED) and name not in answers
    }
    if not shapes:
        raise BundleError("the model has nothing to prune: no convolution, and no linear layer but those that give the answer")
    return shapes


def multiplied(structure: Structure, options: MethodOptions, multiple: int) -> tuple[int, ...]:
    """Return the width of every group after the width multiplier; what may not change stays."""
    if options.width_multiplier == 1.0:
        return structure.widths
    return tuple(
        group.width
        if group.frozen or not group.producers
        else rounded(options.width_multiplier * group.width, group, options.min_width, multiple)
        for group in structure.groups
    )


def densities(subject: Subject, criterion: str, sparsities: Sequence[float]) -> list[tuple[LayerDensity, ...]]:
    """Return every prunable layer's density at each sparsity; the weights are read once for all sparsities.

    Raises:
        BundleError: weights that cannot be scored.
        UsageError: the criterion needs local data, and there are none.
        AgentError: NO_MEMORY when the criterion does not fit.
    """
    try:
        cuts = CRITERIA[criterion](subject, sparsities)
    except ValueError as error:
        raise BundleError(f"the bundle's weights cannot be scored: {error}") from error
    sizes = {name: math.prod(shape) for name, shape in subject.shapes.items()}
    return [tuple(LayerDensity(name, sizes[name], kept[name]) for name in sizes) for kept in cuts]
