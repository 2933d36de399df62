"""In which order training inputs come, epoch by epoch: a permutation, or draws that meet every class as often."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reconvene_agent.core.options import Balance
from reconvene_agent.worker.models.initial import generator

SKEWED = 4.0
"""Where the largest class has so many times the inputs of the smallest, a model learns to ignore the smallest."""


def is_skewed(classes: NDArray[np.int64]) -> bool:
    """Whether the classes (N,) that occur differ too much in number."""
    counts = np.bincount(classes)
    present = counts[counts > 0]
    return bool(len(present)) and float(present.max()) >= SKEWED * float(present.min())


class Order:
    """The order of one run's training inputs. It follows from the seed and the epoch alone."""

    def __init__(self, classes: NDArray[np.int64], balance: Balance, seed: int) -> None:
        self._count = len(classes)
        self._seed = seed
        self.balanced = balance == "auto" and is_skewed(classes)
        self._shares: Tensor | None = None
        if self.balanced:
            counts = np.bincount(classes)
            self._shares = torch.from_numpy(1.0 / counts[classes])

    def of(self, epoch: int) -> Tensor:
        """Return the numbers (N,) of the inputs of an epoch, in order; those of rare classes may come more than once."""
        draw = generator(self._seed, f"order:{epoch}")
        if self._shares is None:
            return torch.randperm(self._count, generator=draw)
        return torch.multinomial(self._shares, self._count, replacement=True, generator=draw)
