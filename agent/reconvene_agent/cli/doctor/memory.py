"""Memory: what is available, against what the worker's libraries take before they have done anything."""

from __future__ import annotations

from collections.abc import Iterator

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, warning
from reconvene_agent.daemon.probe.memory import read_memory

GOOD = ok("memory.good", "{available} of {total} MiB are available; the worker's libraries take {need} MiB{measured}")
SHORT = problem(
    "memory.short",
    "{available} of {total} MiB are available{limit}, but the worker's libraries alone take {need} MiB{measured}",
    "see what takes it (ps aux --sort=-rss | head), and stop what can be stopped; swap makes training far too slow to count",
)
TIGHT = warning(
    "memory.tight",
    "{available} of {total} MiB are available{limit}; the worker's libraries ({need}{measured}) leave {left} for training",
    "see what takes it (ps aux --sort=-rss | head); train small models in small batches ([training] batch)",
)

TYPICAL_MB = 300.0
"""What the libraries take on x86-64, for boards where they could not be loaded."""
ROOM_MB = 128.0
"""A small model in small batches is trained in this."""


def check(case: Case) -> Iterator[Finding]:
    memory = read_memory(case.root)
    need = case.libraries_mb or TYPICAL_MB
    left = memory.available_mb - need
    kind = SHORT if left < 0 else TIGHT if left < ROOM_MB else GOOD
    yield kind(
        available=f"{memory.available_mb:.0f}",
        total=f"{memory.total_mb:.0f}",
        need=f"{need:.0f}",
        measured="" if case.libraries_mb else ", as a rule",
        left=f"{left:.0f}",
        limit=f" within {memory.limited_by}" if memory.limited_by else "",
    )
