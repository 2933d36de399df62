"""Spools for tests: with a clock set by hand, and what waits in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core.config import TelemetrySection
from reconvene_agent.daemon.effects import Kind, Record
from reconvene_agent.daemon.storage.spool import Spool

LIMIT = 65536
EVERYTHING = 1 << 30


Begin = Callable[..., Spool]


class Clock:
    """The seconds since the boot, as the test says; a new board has just been started."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def open_spool(path: Path, boot_id: str = "boot", clock: Clock | None = None, **bounds: Any) -> Spool:
    """Open a spool at ``path`` whose bounds, but for those given, keep none of a few small records out."""
    section = TelemetrySection(**{"spool_bytes": 8 << 20, "spool_min_free_bytes": 0, **bounds})
    return Spool(path, boot_id, section, clock or Clock())


def measurement(**document: Any) -> Record:
    return Record("measurement", "m", document)


def event(**document: Any) -> Record:
    return Record("event", "e", document)


def record(kind: Kind, **document: Any) -> Record:
    return Record(kind, kind[0], document)


def waiting(spool: Spool) -> list[dict[str, Any]]:
    """Return the documents of all records, in order."""
    return [msgspec.json.decode(found.payload) for found in spool.after(0, 1_000_000, EVERYTHING)]


def numbers(spool: Spool) -> list[int]:
    return [found.seq for found in spool.after(0, 1_000_000, EVERYTHING)]


def topics(spool: Spool) -> list[str]:
    return [found.topic for found in spool.after(0, 1_000_000, EVERYTHING)]


def size(spool: Spool) -> int:
    """Return the bytes of topics and payloads."""
    return sum(len(found.topic) + len(found.payload) for found in spool.after(0, 1_000_000, EVERYTHING))
