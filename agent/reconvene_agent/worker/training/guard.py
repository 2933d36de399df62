"""The memory guard: in which way a batch is taken, so that training stays within its limit. Pure.

Taking fewer inputs at a time costs the least. Next, memory that is freed goes back at once, where usually it lies about in pieces
for later use; last, activations are computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from reconvene_agent.worker.models.costs import TrainingCosts

SMALLEST = 8
"""Inputs at a time: batch-norm makes little sense of fewer, and processors are hardly faster per input with more."""
MIB = 2**20
OVERHEAD = 20 * MIB
"""What PyTorch takes for itself once it has done a first step: threads, and kernels made for the shapes at hand."""
SCATTERED = 1.25
"""Times the estimate that training takes where freed memory lies about in pieces: 1.0 to 1.3 for the built-in models."""


class Share(NamedTuple):
    """So many inputs of a batch at a time, their activations computed anew or not, freed memory given back at once or not."""

    micro_batch: int
    recompute: bool = False
    spare: bool = False


def shares(most: int) -> Iterator[Share]:
    """Yield the ways to take a batch, ``most`` inputs at a time or fewer, from the fastest to the one of the least memory."""
    sizes = [most]
    while sizes[-1] > SMALLEST:
        sizes.append(max(SMALLEST, math.ceil(sizes[-1] / 2)))
    for recompute, spare in ((False, False), (False, True), (True, True)):
        for size in sizes:
            yield Share(size, recompute, spare)


def needed(costs: TrainingCosts, share: Share, average: bool = False) -> float:
    """Return the bytes that training takes in one way, as far as can be told; ``average`` if one of the weights is kept."""
    exactly = costs.memory(share.micro_batch, share.recompute, average)
    return OVERHEAD + exactly * (1.0 if share.spare else SCATTERED)


def least(costs: TrainingCosts, most: int, average: bool = False) -> float:
    """Return the bytes below which there is no training."""
    return min(needed(costs, share, average) for share in shares(most))


def choose(costs: TrainingCosts, most: int, limit_mb: float, average: bool = False) -> Share:
    """Return the fastest way to take a batch within the limit; where none is, the one that takes the least."""
    ways = list(shares(most))
    fits = (share for share in ways if needed(costs, share, average) <= limit_mb * MIB)
    return next(fits, min(ways, key=lambda share: needed(costs, share, average)))


def correct(
    costs: TrainingCosts, most: int, limit_mb: float, tried: Share, measured_mb: float, average: bool = False
) -> Share | None:
    """Return the way to take a batch once one was ``tried`` and measured over the limit; None where no other takes less.

    What training was found to take beyond the estimate is taken to be the same share of every estimate.
    """
    estimate = needed(costs, tried, average) / MIB
    found = choose(costs, most, limit_mb * estimate / measured_mb, average)
    return None if found == tried else found
