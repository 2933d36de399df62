"""The word of command that pauses everything, kept on disk: it holds over a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core import atomic
from reconvene_agent.core.decoding import from_json

_note = msgspec.json.Decoder(dict[str, Any])


def kept(path: Path) -> str:
    """Return who has paused everything; empty when nobody has. A file that cannot be read stands for somebody."""
    try:
        return str(from_json(path.read_bytes(), _note.decode)["by"]) or "somebody"
    except FileNotFoundError:
        return ""
    except (OSError, msgspec.DecodeError, KeyError):
        return "somebody"


def keep(path: Path, ordered_by: str) -> None:
    """Keep who has paused everything, or, when empty, that nobody has.

    Raises:
        AgentError: NO_DISK when the disk is full.
        OSError: the file cannot be written or removed.
    """
    if ordered_by:
        atomic.write_bytes(path, msgspec.json.encode({"by": ordered_by}))
    else:
        path.unlink(missing_ok=True)
        atomic.sync_folder(path.parent)
