"""The journal: every command's newest state in SQLite, synced to disk before the agent acts on it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command
from reconvene_agent.daemon.database import DatabaseFullError, open_database, writing

_SCHEMA = "CREATE TABLE IF NOT EXISTS commands (label TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID"


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

    def forget(self, command: Command) -> None:
        """Remove a command.

        Raises:
            DatabaseFullError: there is no room to write that down.
        """
        with writing(self._database):
            self._database.execute("DELETE FROM commands WHERE label = ?", (command.label,))

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
