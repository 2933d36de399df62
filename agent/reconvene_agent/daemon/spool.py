"""The spool: measurements and events wait on disk for the broker, in order, bounded in bytes.

A record leaves when the broker has acknowledged it: at least once, in order, told apart by (boot_id, seq). When there is
no room the oldest measurements go first, and for an event then the oldest events; what had to go is counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.database import DatabaseFullError, open_database, writing

Kind = Literal["measurement", "event"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS records"
    " (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL)"
)
# What SQLite needs for a row beside its texts.
_ROW_BYTES = 32


class SpooledRecord(Struct, frozen=True):
    """One record as it is to be published."""

    seq: int
    topic: str
    payload: bytes


class Spool:
    """Records in order of their ``seq``, which never repeats. ``limit`` bounds their bytes."""

    def __init__(self, path: Path, boot_id: str, limit: int) -> None:
        """Open or make the spool.

        Raises:
            AgentError: NO_DISK when there is no room for it, INTERNAL when the file cannot be used.
        """
        try:
            self._database = open_database(path, _SCHEMA, durable=False)
        except DatabaseFullError as error:
            raise AgentError(f"no space left for {path}: free some disk", ErrorCode.NO_DISK) from error
        self._boot_id = boot_id
        self._limit = limit
        self.dropped = 0
        self._bytes, self._last = self._database.execute(
            f"SELECT COALESCE(SUM(LENGTH(topic) + LENGTH(payload) + {_ROW_BYTES}), 0), "  # noqa: S608 - a number of ours
            "(SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'records') FROM records"
        ).fetchone()

    def append(self, kind: Kind, topic: str, document: dict[str, Any]) -> None:
        """Store a record, with boot id and sequence number added. Where it cannot be stored it is counted as dropped."""
        numbered = {**document, "boot_id": self._boot_id, "seq": self._last + 1}
        if self.dropped:
            numbered["dropped_total"] = self.dropped
        payload = msgspec.json.encode(numbered)
        size = len(topic) + len(payload) + _ROW_BYTES
        if size > self._limit or len(payload) > MAX_PAYLOAD:
            self.dropped += 1
            return
        try:
            with writing(self._database):
                freed, count = self._make_room(kind, size)
                row = (self._last + 1, kind, topic, payload)
                self._database.execute("INSERT INTO records (seq, kind, topic, payload) VALUES (?, ?, ?, ?)", row)
        except (DatabaseFullError, _NoRoomError):
            self.dropped += 1
            return
        self._last += 1
        self._bytes += size - freed
        self.dropped += count

    def after(self, seq: int, count: int) -> list[SpooledRecord]:
        """Return the next ``count`` records with a higher number than ``seq``, in order."""
        query = "SELECT seq, topic, payload FROM records WHERE seq > ? ORDER BY seq LIMIT ?"
        return [SpooledRecord(*row) for row in self._database.execute(query, (seq, count))]

    def remove(self, seq: int) -> None:
        """Remove a record that the broker has acknowledged."""
        row = self._database.execute("SELECT LENGTH(topic) + LENGTH(payload) FROM records WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return
        try:
            with writing(self._database):
                self._database.execute("DELETE FROM records WHERE seq = ?", (seq,))
        except DatabaseFullError:
            return  # it stays and will be sent once more, which the receiver can tell
        self._bytes -= row[0] + _ROW_BYTES

    def close(self) -> None:
        self._database.close()

    def _make_room(self, kind: Kind, size: int) -> tuple[int, int]:
        """Drop records until ``size`` more bytes fit, the oldest measurements first; return the bytes freed and their number.

        Raises:
            _NoRoomError: only events are left, and a measurement drives out no event.
        """
        freed = count = 0
        while self._bytes + size - freed > self._limit:
            row = self._oldest("measurement") or (self._oldest("event") if kind == "event" else None)
            if row is None:
                raise _NoRoomError
            self._database.execute("DELETE FROM records WHERE seq = ?", (row[0],))
            freed += row[1] + _ROW_BYTES
            count += 1
        return freed, count

    def _oldest(self, kind: Kind) -> tuple[int, int] | None:
        """Return number and bytes of the oldest record of a kind."""
        query = "SELECT seq, LENGTH(topic) + LENGTH(payload) FROM records WHERE kind = ? ORDER BY seq LIMIT 1"
        row: tuple[int, int] | None = self._database.execute(query, (kind,)).fetchone()
        return row


class _NoRoomError(Exception):
    """The record itself is the one to be dropped."""
