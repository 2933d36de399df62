"""When a measured latency is to be believed, and when it is worth measuring again. Pure.

Whatever disturbs a measurement makes it slower. So one that keeps the budget although it was disturbed does keep it.
"""

from __future__ import annotations

from msgspec import Struct

from reconvene_agent.core.budget import LATENCIES, Budget
from reconvene_agent.core.release import Latency

OTHERS = 0.1
WAITED = 0.05
STOLEN = 0.05
SLOWED = 0.9
SPREAD = 0.25
TAIL = 2.0
HOPELESS = 3.0
"""Times its limit that a median may be for a quiet moment to be of any help."""
MOST_REPEATS = 2
"""Of a measurement on the way to the choice."""
MOST_FINAL_REPEATS = 1
"""Of the longer one of the choice itself."""


class Conditions(Struct, frozen=True):
    """What else went on during a measurement. None stands for what this board cannot tell.

    Attributes:
        others: share of the usable processors' time that other processes took.
        waited: share of the time in which the measuring thread was ready and had no processor.
        stolen: share of the usable processors' time that the host of a virtual machine gave to others.
        throttled: whether heat or the power supply held the clocks down.
        clock: of the fastest usable processor, as a share of what it may run at all the time.
    """

    others: float | None = None
    waited: float | None = None
    stolen: float | None = None
    throttled: bool | None = None
    clock: float | None = None


class Measurement(Struct, frozen=True):
    """A latency and what it was measured under."""

    latency: Latency
    conditions: Conditions = Conditions()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it may be slower than the model is, one clause each; empty where there is no reason to think so."""
        under, latency = self.conditions, self.latency
        held_down = under.clock is not None and under.clock < SLOWED
        told = (
            (_above(under.others, OTHERS), f"other processes took {under.others or 0:.0%} of the processors"),
            (_above(under.waited, WAITED), f"it waited for a processor {under.waited or 0:.0%} of the time"),
            (_above(under.stolen, STOLEN), f"the virtual machine's host took {under.stolen or 0:.0%} of the processors"),
            (under.throttled is True, "heat or the power supply held the clocks down"),
            (held_down and not under.throttled, f"the clock was at {under.clock or 0:.0%}"),
            (latency.spread > SPREAD, f"the middle half of the times lay {latency.spread:.0%} of their median apart"),
            (latency.p95 > TAIL * latency.p50, f"the slow ones took {latency.p95 / max(latency.p50, 1e-9):.1f} times the median"),
        )
        return tuple(clause for holds, clause in told if holds)


def _above(share: float | None, most: float) -> bool:
    return share is not None and share > most


def better(one: Measurement, other: Measurement) -> Measurement:
    """Return the one to keep of two measurements of one model: that with fewer doubts, among equals the faster."""
    return min(one, other, key=lambda each: (len(each.doubts), each.latency.p95, each.latency.p50))


def worth_repeating(found: Measurement, budget: Budget, repeats: int, final: bool = False) -> bool:
    """Return whether a measurement shall be taken again, after so many repeats of it.

    That of the choice, the ``final`` one, where it is doubtful. Any other only where it is also too slow by it, and not so
    slow that nothing would help.
    """
    if not found.doubts or final:
        return bool(found.doubts) and repeats < MOST_FINAL_REPEATS
    known = {"latency_ms": found.latency.p95, "latency_p50_ms": found.latency.p50}
    limits = [(known[name], limit.value) for name, limit in budget.limits() if name in LATENCIES]
    misses = any(value > allowed for value, allowed in limits)
    return repeats < MOST_REPEATS and misses and all(found.latency.p50 <= HOPELESS * allowed for _, allowed in limits)
