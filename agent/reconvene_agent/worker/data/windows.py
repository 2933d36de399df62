"""Recordings cut into windows of a model's length.

A recording falls into blocks of some windows' length. Windows overlap inside a block and never reach across its end, and the
first of them decides whether the whole block is held out: so no reading is on both sides, and as a recording grows, no window
of its full blocks ever changes sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from reconvene_agent.worker.data.split import held_out

BLOCK = 8
"""Window lengths in a block."""


class Cutter:
    """Cuts one recording after the other into windows (N, C, L) float32."""

    def __init__(self, length: int, overlap: float, validation: float) -> None:
        self._length = length
        self._stride = max(1, round(length * (1.0 - overlap)))
        self._validation = validation
        self._rows: list[Sequence[float]] = []
        self.count = 0
        """Readings of the recording at hand."""

    def add(self, reading: Sequence[float]) -> Iterator[tuple[NDArray[np.float32], bool]]:
        """Take in the next reading (C,); yield the windows of a block that it completes, and whether they are held out."""
        self._rows.append(reading)
        self.count += 1
        if len(self._rows) == BLOCK * self._length:
            yield from self._cut()

    def end(self) -> Iterator[tuple[NDArray[np.float32], bool]]:
        """End the recording; yield what windows its last block has."""
        if len(self._rows) >= self._length:
            yield from self._cut()
        self._rows = []
        self.count = 0

    def _cut(self) -> Iterator[tuple[NDArray[np.float32], bool]]:
        block = np.asarray(self._rows, dtype=np.float32)
        self._rows = []
        # (starts, C, L)
        windows = np.ascontiguousarray(sliding_window_view(block, self._length, axis=0)[:: self._stride])
        yield windows, held_out(windows[0].tobytes(), self._validation)
