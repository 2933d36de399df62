"""Raw inputs of every kind, as they lie in memory: images as levels, windows of a signal and rows of features as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.architectures import RANKS, Kind

Inputs: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""Images (N, C, H, W) uint8, windows (N, C, L) float32 or rows of features (N, F) float32."""

_KINDS: dict[int, Kind] = {rank: kind for kind, rank in RANKS.items()}
_ITEMS: dict[Kind, tuple[str, str]] = {
    "image": ("image", "images"),
    "window": ("window", "windows"),
    "features": ("row", "rows"),
}


def kind_of(input_shape: Sequence[int]) -> Kind:
    """Return what a model takes whose inputs have this shape, without the batch."""
    return _KINDS[len(input_shape)]


def items(kind: Kind, count: int = 2) -> str:
    """Return what people call one or several inputs of a kind."""
    one, many = _ITEMS[kind]
    return one if count == 1 else many
