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
# The bin of zero; negative scores lie below it. Not a number lies beyond both infinities.
_ZERO = 1 << (31 - _SHIFT)
_BINS = 2 * _ZERO + 1
# Scores are looked at so many at a time: what is computed from them takes several times their memory.
_AT_ONCE = 1 << 15

# NumPy picks the few values of a bin out of many five times as fast as PyTorch.
Ordered = NDArray[np.int32]


def _ordered(scores: Tensor, magnitudes: bool) -> Iterator[Ordered]:
    """Yield scores (of any shape), or their magnitudes, some at a time as integers that sort alike."""
    flat = scores.detach().reshape(-1)
    for start in range(0, len(flat), _AT_ONCE):
        bits = flat[start : start + _AT_ONCE].to(torch.float32).contiguous().numpy().view(np.int32)
        size = bits & _MAGNITUDE
        yield size if magnitudes else np.where(bits < 0, -size, size)


class Histogram:
    """How often each bin of scores occurs in one layer."""

    def __init__(self, scores: Tensor, name: str, magnitudes: bool = False) -> None:
        """Count all of ``scores``, or their magnitudes; ``name`` is the layer's.

        Raises:
            ValueError: one is not a finite number.
        """
        counts = np.zeros(_BINS, dtype=np.int64)
        for ordered in _ordered(scores, magnitudes):
            if magnitudes:
                counts[_ZERO:] += np.bincount(ordered >> _SHIFT, minlength=_BINS - _ZERO)
            else:
                counts += np.bincount((ordered >> _SHIFT) + _ZERO, minlength=_BINS)
        self.magnitudes = magnitudes
        finite = _INFINITE >> _SHIFT
        bad = int(counts[_ZERO - finite : _ZERO + finite].sum()) != scores.numel()
        # The lowest numbers share a bin with the infinity below them.
        if bad or (counts[_ZERO - finite] and not torch.isfinite(scores.to(torch.float32)).all()):
            raise ValueError(f"{name} holds values that are not finite numbers")
        # What lies outside the scores would only take memory.
        used = np.flatnonzero(counts)
        self._first = int(used[0]) if len(used) else 0
        self._counts = counts[self._first : int(used[-1]) + 1].copy() if len(used) else counts[:0].copy()

    def add_to(self, total: NDArray[np.int64]) -> None:
        total[self._first : self._first + len(self._counts)] += self._counts

    def above(self, cut: int) -> int:
        """Return how many scores lie in higher bins than ``cut``."""
        return int(self._counts[max(0, cut + 1 - self._first) :].sum())


class Cuts:
    """Where several global cuts fall, once every layer's histogram is known and its scores were shown once more."""

    def __init__(self, histograms: Mapping[str, Histogram], keeps: Sequence[int]) -> None:
        """Find the bins of the cuts that keep so many scores each, of all layers together."""
        total = np.zeros(_BINS, dtype=np.int64)
        for histogram in histograms.values():
            histogram.add_to(total)
        running = total[::-1].cumsum()  # scores in a bin or a higher one, from the highest bin down
        self._bins = [_BINS - 1 - int(np.searchsorted(running, keep)) for keep in keeps]
        self._keeps = list(keeps)
        self._above = [{name: histogram.above(cut) for name, histogram in histograms.items()} for cut in self._bins]
        self._names = list(histograms)
        self._magnitudes = any(histogram.magnitudes for histogram in histograms.values())
        self._found: dict[int, list[tuple[int, Ordered]]] = {cut: [] for cut in self._bins}

    def show(self, name: str, scores: Tensor) -> None:
        """Look for the scores of one layer that lie in the bins of the cuts; layers come in their order."""
        index = self._names.index(name)
        for ordered in _ordered(scores, self._magnitudes):
            bins = ordered >> _SHIFT
            for cut, found in self._found.items():
                some = ordered[bins == cut - _ZERO]
                if len(some):
                    found.append((index, some))

    def kept(self) -> list[dict[str, int]]:
        """Return the surviving scores of each layer, for each cut; of equal scores those of earlier layers survive."""
        results = []
        for keep, cut, above in zip(self._keeps, self._bins, self._above, strict=True):
            owners, values = self._inside(cut)
            missing = keep - sum(above.values())
            chosen = owners[np.argsort(-values, kind="stable")[:missing]]
            extra = np.bincount(chosen, minlength=len(above)).tolist()
            results.append({name: count + more for (name, count), more in zip(above.items(), extra, strict=True)})
        return results

    def lowest(self) -> list[int]:
        """Return the lowest surviving score of each cut, as an integer that sorts alike; none survives a cut that keeps 0."""
        results = []
        for keep, cut, above in zip(self._keeps, self._bins, self._above, strict=True):
            missing = keep - sum(above.values())
            values = np.sort(self._inside(cut)[1])
            results.append(int(values[len(values) - missing]) if missing else _INFINITE)
        return results

    def floors(self) -> list[float]:
        """Return the lowest score of the bin in which each cut falls: a threshold that keeps a bin's worth too many at most.

        For scores that are not negative.
        """
        return [float(np.int32((cut - _ZERO) << _SHIFT).view(np.float32)) for cut in self._bins]

    def _inside(self, cut: int) -> tuple[NDArray[np.int64], Ordered]:
        found = self._found[cut]
        owners = [np.full(len(values), index, dtype=np.int64) for index, values in found]
        values = [values for _, values in found]
        return np.concatenate([np.zeros(0, np.int64), *owners]), np.concatenate([np.zeros(0, np.int32), *values])


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
