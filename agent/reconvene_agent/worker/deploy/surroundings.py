"""What else goes on while a latency is measured: two looks at the kernel's counters, and what changed between them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from reconvene_agent.core.kernel import throttling
from reconvene_agent.core.kernel.files import HOST, parse_number, read_text
from reconvene_agent.core.measuring import Conditions

TICKS = os.sysconf("SC_CLK_TCK")
# Of /proc/stat, after the processor's name: user, nice, system, idle, iowait, irq, softirq, steal.
_BUSY = (0, 1, 2, 5, 6)
_STEAL = 7
_FIELDS = 8
LEAST_TICKS = 2.0
"""What is below so many ticks of the kernel's clock may as well be how it counts."""


class Look(NamedTuple):
    """Counters at one moment, in seconds since some beginning: of the usable processors, of this process, of this thread."""

    at: float
    processors: int
    busy: float
    stolen: float
    own: float
    waited: float | None
    throttled: bool | None
    throttled_count: int
    clock: float | None


def look(root: Path = HOST, cpus: Collection[int] | None = None) -> Look:
    """Look around. ``cpus`` are the processors that this process may use, if not those that it is told it may."""
    usable = os.sched_getaffinity(0) if cpus is None else cpus
    times = _times(root, usable)
    return Look(
        at=time.monotonic(),
        processors=len(times),
        busy=sum(each[field] for each in times for field in _BUSY) / TICKS,
        stolen=sum(each[_STEAL] for each in times) / TICKS,
        own=time.process_time(),
        waited=_waited(root),
        throttled=throttling.held_down(root),
        throttled_count=throttling.throttled_count(root),
        clock=throttling.clock_share(root, usable),
    )


def _times(root: Path, usable: Collection[int]) -> list[list[int]]:
    names = {f"cpu{cpu}" for cpu in usable}
    found = []
    for line in (read_text(root / "proc/stat") or "").splitlines():
        name, _, rest = line.partition(" ")
        if name in names:
            words = rest.split()
            numbers = [parse_number(word) or 0 for word in words[:_FIELDS]]
            found.append(numbers + [0] * (_FIELDS - len(numbers)))
    return found


def _waited(root: Path) -> float | None:
    """Return how long this thread has been ready without a processor."""
    words = (read_text(root / "proc/thread-self/schedstat") or "").split()
    nanoseconds = parse_number(words[1]) if len(words) == 3 else None
    return None if nanoseconds is None else nanoseconds / 1e9


def between(before: Look, after: Look) -> Conditions:
    """Return the conditions between two looks, the first of which was taken earlier by the same thread."""
    seconds = after.at - before.at
    capacity = seconds * after.processors
    told = capacity > 0 and after.processors == before.processors
    others = (after.busy - before.busy) - (after.own - before.own)
    waited = None if before.waited is None or after.waited is None or seconds <= 0 else (after.waited - before.waited) / seconds
    throttled = [each for each in (before.throttled, after.throttled) if each is not None]
    counted = after.throttled_count > before.throttled_count
    return Conditions(
        others=_share(others, capacity) if told else None,
        waited=None if waited is None else round(min(1.0, max(0.0, waited)), 4),
        stolen=_share(after.stolen - before.stolen, capacity) if told else None,
        throttled=True if counted else any(throttled) if throttled else None,
        clock=None if after.clock is None else round(after.clock, 4),
    )


def _share(seconds: float, capacity: float) -> float:
    return 0.0 if seconds * TICKS < LEAST_TICKS else round(min(1.0, seconds / capacity), 4)
