"""Whole counts from shares: as many in all as asked, none above what a layer has."""

from __future__ import annotations

from collections.abc import Mapping


def apportion(shares: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Round shares to whole numbers that sum to ``total``, by largest remainder; equal ones go to the earlier layer.

    ``shares`` sum to about ``total``, which is at most all of ``sizes``.
    """
    counts = {name: min(sizes[name], int(share)) for name, share in shares.items()}
    missing = total - sum(counts.values())
    while missing:
        step = 1 if missing > 0 else -1
        free = [name for name in counts if 0 <= counts[name] + step <= sizes[name]]
        order = sorted(free, key=lambda name: step * (counts[name] - shares[name]))
        for name in order[: abs(missing)]:
            counts[name] += step
        missing = total - sum(counts.values())
    return counts
