"""How the agent keeps SQLite files: write-ahead log, small caches, a broken file set aside, a full disk told apart."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconvene_agent.core.errors import AgentError

_log = logging.getLogger(__name__)

_CACHE_KIB = 128


class DatabaseFullError(Exception):
    """There is no room on the disk for this write; nothing was changed."""


def open_database(path: Path, schema: str, durable: bool) -> sqlite3.Connection:
    """Open or make a database. ``durable`` syncs every transaction to disk; without it only the order is kept.

    A file that is no database any more is renamed to ``NAME.broken`` and a new one begun: the agent must come up.

    Raises:
        DatabaseFullError: there is no room.
        AgentError: the file cannot be used for another reason.
    """
    try:
        return _open(path, schema, durable)
    except sqlite3.DatabaseError as error:
        if _is_full(error):
            raise DatabaseFullError(str(error)) from error
        if isinstance(error, sqlite3.OperationalError):
            raise AgentError(f"{path} cannot be opened: {error}") from error
        _log.error("%s is damaged (%s); it is kept as %s.broken and a new one is begun", path, error, path.name)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.replace(path.with_name(path.name + ".broken"))
    return _open(path, schema, durable)


def _open(path: Path, schema: str, durable: bool) -> sqlite3.Connection:
    # One thread owns the connection; it may be opened by another one in tests.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # Exclusive: one daemon owns its files, and the log's index then lives in memory instead of in a mapped file.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.executescript(schema)
        # Damage further in would show only when it is read, and then again after every restart.
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction.

    Raises:
        DatabaseFullError: there is no room; nothing of the block remains.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error) and _is_full(error):
            raise DatabaseFullError(str(error)) from error
        raise


def _is_full(error: sqlite3.Error) -> bool:
    text = str(error)
    return "disk is full" in text or "disk I/O error" in text
