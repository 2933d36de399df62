"""What a run keeps on disk so that an interruption does not cost it: notes by name, bound to the run that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core import atomic
from reconvene_agent.core.decoding import from_json

_note = msgspec.json.Decoder(dict[str, Any])


class Work:
    """The work folder of one run. ``fingerprint`` names all that the run depends on; notes of another run are none.

    What an attempt that was killed has left half-written there is removed.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        atomic.sweep(folder)

    def remember(self, name: str, value: object) -> None:
        """Keep a value, which must be what JSON can hold.

        Raises:
            AgentError: NO_DISK when the disk is full.
        """
        with atomic.full_disk_is_no_disk(f"making {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.encode({"fingerprint": self.fingerprint, "value": value})
        atomic.write_bytes(self.folder / f"{name}.json", content)

    def recall(self, name: str, kind: Any) -> Any:
        """Return a value that was kept, as a ``kind``, or None where there is none of this run that can be read."""
        try:
            found = from_json((self.folder / f"{name}.json").read_bytes(), _note.decode)
            return msgspec.convert(found["value"], kind) if found["fingerprint"] == self.fingerprint else None
        except (OSError, msgspec.DecodeError, KeyError):
            return None
