"""Which retained topics outside the agent's own the broker may hold for Home Assistant, kept over restarts.

It is noted before they are published, so that they can be cleared when discovery has been switched off since.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from reconvene_agent.core import atomic
from reconvene_agent.core.decoding import from_json

_decoder = msgspec.json.Decoder(tuple[str, ...])


def kept(path: Path) -> tuple[str, ...]:
    """Return the topics noted; none when there is no note, or none that can be read."""
    try:
        return from_json(path.read_bytes(), _decoder.decode)
    except (OSError, msgspec.DecodeError):
        return ()


def keep(path: Path, topics: tuple[str, ...]) -> None:
    """Note these topics, synced.

    Raises:
        AgentError: NO_DISK when the disk is full.
        OSError: the note cannot be written.
    """
    if topics:
        atomic.write_bytes(path, msgspec.json.encode(topics))
    else:
        path.unlink(missing_ok=True)
