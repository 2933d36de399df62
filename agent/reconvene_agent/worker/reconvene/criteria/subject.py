"""What a criterion is asked about: the prunable layers of one dense model, and how to get at weights and data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from reconvene_agent.worker.models.weights import WeightSource

Shape = tuple[int, ...]

Kept = dict[str, int]
"""Surviving weights by layer name."""

Sample = Callable[[int], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Draws so many normalised inputs (N, …) and their classes (N,) from the local data."""

Report = Callable[[float], None]
"""Hears the share of the scoring that is done; what it raises stops the scoring."""


def unheard(_share: float) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Subject:
    """A dense model as a criterion sees it.

    Attributes:
        shapes: of the prunable weights, by layer name, in the model's order.
        weights: where the initial weights come from.
        seed: decides what is drawn at random.
        model: returns the dense model on the meta device.
        input: shape of one input.
        sample: local data; None when there are none.
        memory_mb: what scoring may take, in MiB; None when nothing limits it.
        report: hears of scoring that takes long.
    """

    shapes: Mapping[str, Shape]
    weights: WeightSource
    seed: int
    model: Callable[[], nn.Module]
    input: Shape
    sample: Sample | None = None
    memory_mb: float | None = None
    report: Report = unheard

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    def keep(self, sparsity: float) -> int:
        """Return how many weights of all layers together survive."""
        return round((1.0 - sparsity) * sum(self.sizes.values()))
