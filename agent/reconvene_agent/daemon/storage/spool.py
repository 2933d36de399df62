"""The spool: measurements and events wait on disk for the broker, in order, bounded in bytes, in age and by the free disk.

A record is acknowledged to its writer when ``append`` returns: from then on it survives the end of the process at any moment.
A power cut may take what the kernel has not written out yet, half a minute as a rule; what is left is whole and in order. A
record leaves when the broker has acknowledged it: at least once, in order, told apart by (boot_id, seq). What has to go before
that is counted.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from reconvene_agent.core.config import LEAST_SPOOL_BYTES, TelemetrySection
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.effects import Kind, Record
from reconvene_agent.daemon.storage import sharing
from reconvene_agent.daemon.storage.database import DatabaseFullError, open_database, writing

# What SQLite needs for a row beside its texts.
_ROW_BYTES = 32
_SIZE = f"LENGTH(topic) + LENGTH(payload) + {_ROW_BYTES}"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spooled (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, stamp INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS account (
    id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, offset REAL NOT NULL, dropped INTEGER NOT NULL
);
"""
# So many at most go at a time because of their age, so that nobody waits for it.
_EXPIRE_AT_ONCE = 1000
_DAY_S = 24 * 3600

_log = logging.getLogger("reconvene_agent")


class SpooledRecord(Struct, frozen=True):
    """One record as it is to be published."""

    seq: int
    topic: str
    payload: bytes


class _Account(Struct):
    """What the spool holds.

    Attributes:
        bytes: by kind.
        gone: by kind, a number up to which there is none left.
        last: the number of the last record.
        dropped: how many records had to go, ever.
    """

    bytes: dict[Kind, int]
    gone: dict[Kind, int]
    last: int
    dropped: int

    def copy(self) -> _Account:
        return _Account(dict(self.bytes), dict(self.gone), self.last, self.dropped)


def since_boot() -> float:
    """Return the seconds since the board was started, sleep included; setting the clock does not change them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Spool:
    """Records in order of their ``seq``, which never repeats within a boot. Used by the owner's thread alone."""

    def __init__(self, path: Path, boot_id: str, bounds: TelemetrySection, elapsed: Callable[[], float] = since_boot) -> None:
        """Open or make the spool. ``elapsed`` returns the seconds since the boot ``boot_id`` began.

        Raises:
            AgentError: NO_DISK when there is no room for it, INTERNAL when the file cannot be used.
        """
        try:
            self._database = open_database(path, _SCHEMA, durable=False)
        except DatabaseFullError as error:
            raise AgentError(f"no space left for {path}: free some disk", ErrorCode.NO_DISK) from error
        self._folder = path.parent
        self._boot_id = boot_id
        self._bounds = bounds
        self._elapsed = elapsed
        self._warned = False
        self._noted = self._database.execute("SELECT boot_id, offset, dropped FROM account").fetchone()
        newest, last = self._database.execute(
            "SELECT (SELECT stamp FROM spooled ORDER BY seq DESC LIMIT 1),"
            " (SELECT seq FROM sqlite_sequence WHERE name = 'spooled')"
        ).fetchone()
        # Ages are told by a clock of the spool's own, which runs while the board does: no setting of the clock can make
        # everything too old at once, nor keep it for ever. After a boot it goes on where it was at the newest record.
        if self._noted is not None and self._noted[0] == boot_id:
            self._offset: float = self._noted[1]
        else:
            self._offset = 0.0 if newest is None else newest - elapsed()
        # No GROUP BY: it would sort whole records.
        events, measurements = self._database.execute(
            f"SELECT TOTAL({_SIZE}) FILTER (WHERE kind = 'event'), TOTAL({_SIZE}) FILTER (WHERE kind <> 'event') FROM spooled"  # noqa: S608
        ).fetchone()
        held: dict[Kind, int] = {"measurement": int(measurements), "event": int(events)}
        # Should the file be lost, numbers must not repeat within the boot: a new one begins where the old one had not come to.
        last = int(elapsed() * 1000) if last is None else last
        dropped = 0 if self._noted is None else self._noted[2]
        self._account = _Account(held, {"measurement": 0, "event": 0}, last, dropped)

    @property
    def last(self) -> int:
        """The number of the last record that was stored, sent or not."""
        return self._account.last

    @property
    def dropped(self) -> int:
        """How many records had to go, ever."""
        return self._account.dropped

    def append(self, records: Sequence[Record]) -> None:
        """Store records in order, boot id and sequence number added, in one transaction. What cannot be kept is counted."""
        if not records:
            return
        before = self.dropped
        try:
            self._store(records)
        except DatabaseFullError:
            if len(records) > 1:
                for record in records:  # some of them may fit
                    self.append([record])
                return
            self._account.dropped += 1
        if self.dropped > before and not self._warned:
            self._warned = True
            _log.warning(
                "records that waited for the broker were dropped, %d so far: too many, too old, or the disk is full", self.dropped
            )

    def after(self, seq: int, count: int, most_bytes: int) -> list[SpooledRecord]:
        """Return the next records after ``seq``: at most ``count`` and, but for the first, ``most_bytes`` of payload."""
        found: list[SpooledRecord] = []
        query = "SELECT seq, topic, payload FROM spooled WHERE seq > ? ORDER BY seq LIMIT ?"
        with closing(self._database.execute(query, (seq, count))) as rows:
            for row in rows:
                most_bytes -= len(row[2])
                if found and most_bytes < 0:
                    break
                found.append(SpooledRecord(*row))
        return found

    def remove(self, seqs: Iterable[int]) -> None:
        """Remove records that the broker has acknowledged, in one transaction.

        Raises:
            DatabaseFullError: there is no room to write that down; all of them stay.
        """
        account = self._account.copy()
        query = f"SELECT seq, kind, {_SIZE} FROM spooled WHERE seq = ?"  # noqa: S608 - a number of ours
        with writing(self._database):
            for seq in seqs:
                if (row := self._database.execute(query, (seq,)).fetchone()) is not None:
                    self._delete(account, *row)
        self._account = account

    def close(self) -> None:
        try:
            self._database.close()
        except sqlite3.Error:
            pass  # on a full disk the last checkpoint of the log fails; the log itself is complete

    def _store(self, records: Sequence[Record]) -> None:
        """Store records in one transaction.

        Raises:
            DatabaseFullError: there is no room; nothing was changed.
        """
        account = self._account.copy()
        stamp = int(self._elapsed() + self._offset)
        with writing(self._database):
            self._expire(account, stamp)
            limit = self._limit(account)
            for record in records:
                if (payload := self._make_room(account, record, limit)) is None:
                    account.dropped += 1
                    continue
                account.last += 1
                row = (account.last, record.kind, stamp, record.topic, payload)
                self._database.execute("INSERT INTO spooled (seq, kind, stamp, topic, payload) VALUES (?, ?, ?, ?, ?)", row)
            note = (self._boot_id, self._offset, account.dropped)
            if note != self._noted:
                self._database.execute("INSERT OR REPLACE INTO account VALUES (0, ?, ?, ?)", note)
        self._account, self._noted = account, note

    def _make_room(self, account: _Account, record: Record, limit: int) -> bytes | None:
        """Let older records go until this one fits; return what is to be stored of it, None when it can have no room."""
        numbered = {**record.document, "boot_id": self._boot_id, "seq": account.last + 1}
        if account.dropped:
            numbered["dropped_total"] = account.dropped
        payload = msgspec.json.encode(numbered)
        size = len(record.topic) + len(payload) + _ROW_BYTES
        reserve = int(self._bounds.spool_events_share * limit)
        room = (record.kind, size, limit, reserve)
        if len(payload) > MAX_PAYLOAD or not sharing.can_have_room(account.bytes, *room):
            return None
        while (kind := sharing.gives_way(account.bytes, *room)) is not None:
            query = f"SELECT seq, kind, {_SIZE} FROM spooled WHERE seq > ? AND kind = ? ORDER BY seq LIMIT 1"  # noqa: S608
            seq, _, freed = self._database.execute(query, (account.gone[kind], kind)).fetchone()
            account.gone[kind] = seq
            self._drop(account, seq, kind, freed)
        account.bytes[record.kind] += size
        return payload

    def _limit(self, account: _Account) -> int:
        """Return how many bytes there may be now: while the disk is nearly full, no more than there are."""
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize >= self._bounds.spool_min_free_bytes:
            return self._bounds.spool_bytes
        return max(LEAST_SPOOL_BYTES, min(self._bounds.spool_bytes, sum(account.bytes.values())))

    def _expire(self, account: _Account, stamp: int) -> None:
        """Drop what is too old."""
        query = f"SELECT seq, kind, {_SIZE} FROM spooled WHERE stamp < ? AND seq <= (SELECT MIN(seq) FROM spooled)"  # noqa: S608
        for _ in range(_EXPIRE_AT_ONCE):
            row = self._database.execute(query, (stamp - self._bounds.spool_days * _DAY_S,)).fetchone()
            if row is None:
                return
            self._drop(account, *row)

    def _drop(self, account: _Account, seq: int, kind: Kind, size: int) -> None:
        self._delete(account, seq, kind, size)
        account.dropped += 1

    def _delete(self, account: _Account, seq: int, kind: Kind, size: int) -> None:
        self._database.execute("DELETE FROM spooled WHERE seq = ?", (seq,))
        account.bytes[kind] -= size
