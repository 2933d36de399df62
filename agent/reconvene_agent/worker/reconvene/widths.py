"""How many of a group's channels stay, once a share of them is known."""

from __future__ import annotations

import math

from reconvene_agent.worker.reconvene.groups import ChannelGroup


def rounded(wanted: float, group: ChannelGroup, least: int, multiple: int) -> int:
    """Return a whole width of at least ``wanted`` channels, never more than the group has.

    A group keeps ``least`` channels, so that none collapses, and channels come in multiples of ``multiple``, which runs
    faster on most hardware for almost no size. Of heads and blocks, which have several channels each, one may be enough.
    """
    # The tolerance keeps an exact product such as 0.1·50 from being rounded up by its binary representation.
    kept = max(math.ceil(wanted - 1e-9), math.ceil(least / group.entries))
    step = max(1, multiple // group.entries)
    return min(group.width, math.ceil(kept / step) * step)
