"""A global cut: how many scores of each layer are among the highest of all, exactly, from one layer at a time.

The bit pattern of a float32 grows with its magnitude. So a histogram of the high bits finds the bin in which a cut
falls, and only the scores of that bin are ever sorted: the counts of a global sort, without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHIFT = 17
_INFINITE = 0x7F800000
_MAGNITUDE = 0x7FFFFFFF
# Bins on either side of that of zero. Not a number lies beyond both infinities.
_SIDE = 1 << (31 - _SHIFT)
# Scores are looked at so many at a time, and a small layer's by sixteenths: what is computed takes several times their memory.
_LEAST_AT_ONCE, _MOST_AT_ONCE = 1 << 13, 1 << 16

# NumPy picks the few values of a bin out of many five times as fast as PyTorch, which counts faster.
Ordered = NDArray[np.int32]


def _ordered(scores: Tensor, magnitudes: bool) -> Iterator[Ordered]:
    """Yield scores (of any shape), or their magnitudes, some at a time as integers that sort alike.

    All have the same memory, so each is gone when the next comes: fresh memory for each would take as long as the work.
    """
    flat = scores.detach().reshape(-1)
    at_once = min(max(len(flat) // 16, _LEAST_AT_ONCE), _MOST_AT_ONCE)
    buffer = np.empty(at_once, dtype=np.int32)
    for start in range(0, len(flat), at_once):
        bits = flat[start : start + at_once].to(torch.float32).contiguous().numpy().view(np.int32)
        size = np.bitwise_and(bits, _MAGNITUDE, out=buffer[: len(bits)])
        if not magnitudes:
            np.negative(size, out=size, where=bits < 0)
        yield size


class Histogram:
    """How often each bin of scores occurs in one layer."""

    def __init__(self, scores: Tensor, name: str, magnitudes: bool = False) -> None:
        """Count all of ``scores``, or their magnitudes; ``name`` is the layer's.

        Raises:
            ValueError: one is not a finite number.
        """
        # Bins are numbered from the lowest that may occur.
        zero = 0 if magnitudes else _SIDE
        counts = np.zeros(zero + _SIDE + 1, dtype=np.int64)
        for ordered in _ordered(scores, magnitudes):
            bins = np.right_shift(ordered, _SHIFT, out=ordered)
            if zero:
                bins += zero
            some = torch.bincount(torch.from_numpy(bins)).numpy()
            counts[: len(some)] += some
        self.magnitudes = magnitudes
        finite = _INFINITE >> _SHIFT
        lowest = max(0, zero - finite)
        bad = int(counts[lowest : zero + finite].sum()) != scores.numel()
        # The lowest numbers share a bin with the infinity below them.
        if bad or (zero and counts[lowest] and not torch.isfinite(scores.to(torch.float32)).all()):
            raise ValueError(f"{name} holds values that are not finite numbers")
        # What lies outside the scores would only take memory.
        used = np.flatnonzero(counts)
        first, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (zero, zero)
        self._counts = counts[first:end].copy()
        self.first = first - zero
        """The lowest bin in use; that of zero is 0."""

    @property
    def end(self) -> int:
        """The bin above the highest in use."""
        return self.first + len(self._counts)

    def add_to(self, total: NDArray[np.int64], first: int) -> None:
        """Add the counts to those of all layers, whose lowest bin is ``first``."""
        total[self.first - first : self.end - first] += self._counts

    def above(self, cut: int) -> int:
        """Return how many scores lie in higher bins than ``cut``."""
        return int(self._counts[max(0, cut + 1 - self.first) :].sum())


class Cuts:
    """Where several global cuts fall, once every layer's histogram is known and its scores were shown once more."""

    def __init__(self, histograms: Mapping[str, Histogram], keeps: Sequence[int]) -> None:
        """Find the bins of the cuts that keep so many scores each, of all layers together."""
        first = min(histogram.first for histogram in histograms.values())
        end = max(histogram.end for histogram in histograms.values())
        total = np.zeros(end - first, dtype=np.int64)
        for histogram in histograms.values():
            histogram.add_to(total, first)
        running = total[::-1].cumsum()  # scores in a bin or a higher one, from the highest bin down
        self._bins = [end - 1 - int(np.searchsorted(running, keep)) for keep in keeps]
        self._keeps = list(keeps)
        self._above = [{name: histogram.above(cut) for name, histogram in histograms.items()} for cut in self._bins]
        self._names = list(histograms)
        self._magnitudes = any(histogram.magnitudes for histogram in histograms.values())
        self._found: dict[int, list[tuple[int, Ordered]]] = {cut: [] for cut in self._bins}

    def show(self, name: str, scores: Tensor) -> None:
        """Look for the scores of one layer that lie in the bins of the cuts; layers come in their order."""
        index = self._names.index(name)
        for ordered in _ordered(scores, self._magnitudes):
            for cut, found in self._found.items():
                some = ordered[(ordered >= cut << _SHIFT) & (ordered < (cut + 1) << _SHIFT)]
                if len(some):
                    found.append((index, some))

    def kept(self) -> list[dict[str, int]]:
        """Return the surviving scores of each layer, for each cut; of equal scores those of earlier layers survive."""
        results = []
        for cut, above, missing in self._cuts():
            owners, values = self._inside(cut)
            lowest = _largest_but(values, missing)
            surely = owners[values > lowest]
            chosen = np.concatenate([surely, owners[values == lowest][: missing - len(surely)]])
            extra = np.bincount(chosen, minlength=len(above)).tolist()
            results.append({name: count + more for (name, count), more in zip(above.items(), extra, strict=True)})
        return results

    def lowest(self) -> list[int]:
        """Return the lowest surviving score of each cut, as an integer that sorts alike; none survives a cut that keeps 0."""
        return [_largest_but(self._inside(cut)[1], missing) for cut, _, missing in self._cuts()]

    def _cuts(self) -> Iterator[tuple[int, dict[str, int], int]]:
        """Yield the bin of each cut, how many scores of each layer lie above it, and how many are missing beside these."""
        for keep, cut, above in zip(self._keeps, self._bins, self._above, strict=True):
            yield cut, above, keep - sum(above.values())

    def floors(self) -> list[float]:
        """Return the lowest score of the bin in which each cut falls: a threshold that keeps a bin's worth too many at most.

        For scores that are not negative.
        """
        return [float(np.int32(cut << _SHIFT).view(np.float32)) for cut in self._bins]

    def _inside(self, cut: int) -> tuple[NDArray[np.int64], Ordered]:
        found = self._found[cut]
        owners = [np.full(len(values), index, dtype=np.int64) for index, values in found]
        values = [values for _, values in found]
        return np.concatenate([np.zeros(0, np.int64), *owners]), np.concatenate([np.zeros(0, np.int32), *values])


def _largest_but(values: Ordered, count: int) -> int:
    """Return the ``count``-th largest of the values, or what is above all of them where none is asked for."""
    return int(np.partition(values, len(values) - count)[len(values) - count]) if count else _INFINITE


def largest(weight: Tensor, count: int) -> Tensor:
    """Return which ``count`` of the weights are the largest in magnitude, as a mask; of equal ones the first."""
    cuts = Cuts({"": Histogram(weight, "a layer", magnitudes=True)}, [count])
    cuts.show("", weight)
    (lowest,) = cuts.lowest()
    mask = np.empty(weight.numel(), dtype=np.bool_)
    equal = []
    start = 0
    for ordered in _ordered(weight, magnitudes=True):
        end = start + len(ordered)
        np.greater(ordered, lowest, out=mask[start:end])
        equal.append(np.flatnonzero(ordered == lowest) + start)
        start = end
    mask[np.concatenate(equal)[: count - int(np.count_nonzero(mask))]] = True
    return torch.from_numpy(mask).reshape(weight.shape)
