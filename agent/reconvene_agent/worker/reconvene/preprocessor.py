"""Model Pre-Processor: the dense model at initialisation, scored by an unstructured criterion and cut globally.

Eccles et al. 2024 (arXiv 2404.16877), section III. The prunable weights are those of the convolutions; the classifier's
are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.models.weights import WeightSource
from reconvene_agent.worker.reconvene.criteria import CRITERIA


@dataclass(frozen=True)
class LayerDensity:
    """One prunable layer after the cut: how many of its ``weights`` are ``kept``."""

    name: str
    weights: int
    kept: int

    @property
    def density(self) -> float:
        return self.kept / self.weights


def prunable(dense: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that may be cut, by layer name, in the model's order.

    Raises:
        BundleError: the model has none.
    """
    shapes = {name: tuple(layer.weight.shape) for name, layer in dense.named_modules() if isinstance(layer, nn.Conv2d)}
    if not shapes:
        raise BundleError("the model has nothing to prune: no convolution")
    return shapes


def densities(
    dense: nn.Module, weights: WeightSource, criterion: str, sparsities: Sequence[float]
) -> list[tuple[LayerDensity, ...]]:
    """Return every prunable layer's density at each sparsity; the weights are read once for all sparsities.

    Raises:
        BundleError: nothing to prune, or weights that are not finite.
    """
    shapes = prunable(dense)
    layers = {name: partial(weights.weight, f"{name}.weight", shape) for name, shape in shapes.items()}
    try:
        cuts = CRITERIA[criterion](layers, sparsities)
    except ValueError as error:
        raise BundleError(f"the bundle's weights cannot be scored: {error}") from error
    sizes = {name: _size(shape) for name, shape in shapes.items()}
    return [tuple(LayerDensity(name, sizes[name], kept[name]) for name in shapes) for kept in cuts]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
