"""The journal: every command's newest state in SQLite, synced to disk before the agent acts on it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import msgspec

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command
from reconvene_agent.daemon.security.trust import Memory, Nonce
from reconvene_agent.daemon.storage.database import DatabaseFullError, open_database, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (label TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonces (name TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
"""
# Two times that are kept beside the nonces, whose names all have a colon.
_FLOOR, _BEGUN = "floor", "begun"


class Journal:
    """The commands of one agent on disk."""

    def __init__(self, path: Path) -> None:
        """Open or make the journal.

        Raises:
            AgentError: NO_DISK when there is no room for it, INTERNAL when the file cannot be used.
        """
        try:
            self._database = open_database(path, _SCHEMA, durable=True)
        except DatabaseFullError as error:
            raise AgentError(f"no space left for {path}: free some disk", ErrorCode.NO_DISK) from error
        self._broken = path.with_name(path.name + ".broken")

    def load(self) -> list[Command]:
        """Return every command; a state that cannot be read (of a newer agent, say) is left out."""
        states = (_decode(state) for (state,) in self._database.execute("SELECT state FROM commands"))
        return [command for command in states if command is not None]

    def save(self, *commands: Command) -> None:
        """Store the states of these commands, all or none; on return they are on disk.

        Raises:
            DatabaseFullError: there is no room; the states before them stay.
        """
        rows = [(command.label, msgspec.json.encode(command)) for command in commands]
        with writing(self._database):
            self._database.executemany("INSERT OR REPLACE INTO commands (label, state) VALUES (?, ?)", rows)

    def memory(self) -> Memory:
        """Return what is remembered of signatures.

        A journal that took the place of a damaged one knows nothing of what the damaged one knew, and remembers since when.

        Raises:
            AgentError: NO_DISK when there is no room to write that down.
        """
        rows: dict[str, float] = dict(self._database.execute("SELECT name, expires_at FROM nonces"))
        if _BEGUN not in rows:
            rows[_BEGUN] = max(self._broken.stat().st_mtime, time.time()) if self._broken.exists() else 0.0
            try:
                self._keep_time(_BEGUN, rows[_BEGUN])
            except DatabaseFullError as error:
                raise AgentError("no space left for the journal: free some disk", ErrorCode.NO_DISK) from error
        begun, floor = rows.pop(_BEGUN), rows.pop(_FLOOR, 0.0)
        return Memory(rows, floor, begun)

    def forget(self, command: Command, nonce: Nonce | None = None) -> None:
        """Remove a command, but for its nonce.

        Raises:
            DatabaseFullError: there is no room to write that down.
        """
        with writing(self._database):
            if nonce is not None:
                row = (nonce.name, nonce.expires_at)
                self._database.execute("INSERT OR REPLACE INTO nonces (name, expires_at) VALUES (?, ?)", row)
            self._database.execute("DELETE FROM commands WHERE label = ?", (command.label,))

    def forget_nonces(self, until: float) -> None:
        """Remove the nonces of commands that expire by ``until``, and remember that time.

        Raises:
            DatabaseFullError: there is no room to write that down.
        """
        with writing(self._database):
            self._database.execute("DELETE FROM nonces WHERE expires_at <= ? AND name NOT IN (?, ?)", (until, _FLOOR, _BEGUN))
            self._put_time(_FLOOR, until)

    def _keep_time(self, name: str, moment: float) -> None:
        with writing(self._database):
            self._put_time(name, moment)

    def _put_time(self, name: str, moment: float) -> None:
        self._database.execute("INSERT OR REPLACE INTO nonces (name, expires_at) VALUES (?, ?)", (name, moment))

    def close(self) -> None:
        try:
            self._database.close()
        except sqlite3.Error:
            pass  # on a full disk the last checkpoint of the log fails; the log itself is complete


def _decode(state: bytes) -> Command | None:
    try:
        return msgspec.json.decode(state, type=Command)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
