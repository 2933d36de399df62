"""Unstructured pruning-at-initialisation criteria: how many weights of each layer survive a global cut.

What such a criterion decides is each layer's density; which weights inside a layer survive hardly matters
(Frankle et al. 2021, arXiv 2009.08576; Su et al. 2020, arXiv 2009.11094). So a criterion here answers with counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Layers = Mapping[str, Callable[[], Tensor]]
"""Prunable weights by layer name, each read or drawn when it is called for, so that one at a time need be in memory."""

Kept = dict[str, int]
"""Surviving weights by layer name."""

_BINS = 1 << 16
_SHIFT = 15


def _order(weight: Tensor) -> Tensor:
    """Return |w| as integers that sort alike: the bit pattern of a non-negative float32 grows with its value."""
    return weight.detach().to(torch.float32).abs().reshape(-1).view(torch.int32)


def magnitude(layers: Layers, sparsities: Sequence[float]) -> list[Kept]:
    """Keep the globally largest |w|: for each sparsity s, round((1 − s) · N) weights of all N.

    Exactly the counts of a global sort, ties going to the earlier layer, in two passes that hold one layer at a time: a
    histogram of the high bits finds the bin in which each cut falls, then the values of just those bins are sorted.
    Han et al. 2015 (arXiv 1506.02626); at initialisation: Frankle et al. 2021 (arXiv 2009.08576), section 3.

    Raises:
        ValueError: a weight is not a number.
    """
    counts: dict[str, Tensor] = {}
    for name, read in layers.items():
        weight = read()
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds weights that are not finite numbers")
        counts[name] = torch.bincount(_order(weight) >> _SHIFT, minlength=_BINS)
    total = sum(counts.values(), torch.zeros(_BINS, dtype=torch.int64))
    above = total.flip(0).cumsum(0).flip(0)  # weights in this bin or a higher one
    keeps = [round((1.0 - sparsity) * int(above[0])) for sparsity in sparsities]
    cuts = [int(torch.nonzero(above >= keep).max()) for keep in keeps]
    inside = _values_of_bins(layers, set(cuts))
    results = []
    for keep, cut in zip(keeps, cuts, strict=True):
        kept = {name: int(count[cut + 1 :].sum()) for name, count in counts.items()}
        missing = keep - sum(kept.values())
        owners, values = inside[cut]
        chosen = owners[torch.sort(values, descending=True, stable=True).indices[:missing]]
        extra = torch.bincount(chosen, minlength=len(kept)).tolist()
        results.append({name: kept[name] + more for name, more in zip(kept, extra, strict=True)})
    return results


def _values_of_bins(layers: Layers, bins: set[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Return for each bin the layer number and the ordered value of every weight in it, in layer order."""
    owners: dict[int, list[Tensor]] = {number: [] for number in bins}
    values: dict[int, list[Tensor]] = {number: [] for number in bins}
    for index, read in enumerate(layers.values()):
        ordered = _order(read())
        high = ordered >> _SHIFT
        for number in bins:
            found = ordered[high == number]
            values[number].append(found)
            owners[number].append(torch.full_like(found, index))
    return {number: (torch.cat(owners[number]), torch.cat(values[number])) for number in bins}


CRITERIA: dict[str, Callable[[Layers, Sequence[float]], list[Kept]]] = {
    "magnitude": magnitude,
}
