"""Who this agent is, in one place: the names and numbers that stand in its messages."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from msgspec import Struct

from reconvene_agent.core.topics import Topics


class Identity(Struct, frozen=True):
    """One run of one agent. ``session`` differs for every start of the process, ``boot_id`` for every boot of the board."""

    topics: Topics
    version: str
    pid: int
    session: str
    boot_id: str


def boot_id(root: Path = Path("/")) -> str:
    """Return the kernel's id of this boot, or a new one where the kernel tells none."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(uuid.uuid4())


def of_this_process(topics: Topics, version: str) -> Identity:
    """Return the identity of this run."""
    return Identity(topics, version, os.getpid(), uuid.uuid4().hex[:12], boot_id())
