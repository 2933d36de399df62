"""The magnitudes of a dense model's weights while more and more of them are cut away."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reconvene_agent.worker.reconvene.criteria.subject import Subject

# Share of the memory that may be spent on keeping weights.
_SHARE = 0.5


class Magnitudes:
    """Reads a layer's magnitudes, zero where they were cut away.

    They are kept in memory where the budget holds them; else only one bit for each weight is, and the weights are read
    or drawn again each time.
    """

    def __init__(self, subject: Subject, dtype: torch.dtype) -> None:
        self.names = frozenset(subject.shapes)
        self._subject = subject
        self._dtype = dtype
        needed = sum(subject.sizes.values()) * dtype.itemsize / 2**20
        self._cached: dict[str, Tensor] | None = None
        if subject.memory_mb is None or needed <= _SHARE * subject.memory_mb:
            self._cached = {}
        self._bits: dict[str, NDArray[np.uint8]] = {}

    def read(self, name: str) -> Tensor:
        """Return the magnitudes of a layer; they must not be changed.

        Raises:
            ValueError: a weight is not a number.
        """
        if self._cached is not None and name in self._cached:
            return self._cached[name]
        weight = self._subject.weights.weight(f"{name}.weight", self._subject.shapes[name])
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds values that are not finite numbers")
        magnitudes = weight.abs().to(self._dtype)
        if name in self._bits:
            flags = np.unpackbits(self._bits[name], count=weight.numel())
            magnitudes.view(-1).mul_(torch.from_numpy(flags))
        if self._cached is not None:
            self._cached[name] = magnitudes
        return magnitudes

    def keep(self, name: str, mask: Tensor) -> None:
        """Cut away what is False in ``mask`` (in the weight's shape)."""
        if self._cached is not None:
            self._cached[name].mul_(mask)
        else:
            bits = np.packbits(mask.reshape(-1).numpy())
            self._bits[name] = bits & self._bits[name] if name in self._bits else bits
