"""What leaves for the broker: publications of state at once, records of the spool in order and so many at a time."""

from __future__ import annotations

import logging

from msgspec import Struct

from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.storage.database import DatabaseFullError
from reconvene_agent.daemon.storage.spool import Spool

# Records are fetched, and removed, in batches of half a window. MQTT has 20 under way at a time, so that the line does not run
# dry while the other half is fetched. A state that is published during a drain waits behind no more than a window.
WINDOW = 40
REFILL = WINDOW // 2
WINDOW_BYTES = 256 * 1024

_log = logging.getLogger("reconvene_agent")


class _Sent(Struct, frozen=True):
    seq: int
    size: int


class Outbox:
    """Matches the broker's acknowledgements to what was published. Used by the owner's thread alone."""

    def __init__(self, connection: Connection | None, spool: Spool) -> None:
        self._connection = connection
        self._spool = spool
        self._tokens: dict[int, str] = {}
        self._under_way: dict[int, _Sent] = {}
        self._bytes = 0
        self._done: list[int] = []
        self._sent = 0
        self._draining = False
        self._refused = False

    def publish(self, topic: str, payload: bytes, retain: bool, token: str) -> None:
        """Publish now; without a connection nothing happens, since state is announced anew on the next one."""
        handle = self._connection.publish(topic, payload, retain) if self._connection is not None else None
        if handle is not None and token:
            self._tokens[handle] = token

    def begin(self) -> None:
        """A connection begins: what was under way on the last one is sent again."""
        self._settle()
        self._tokens.clear()
        self._under_way.clear()
        self._bytes = 0
        self._sent = 0
        self._refused = False
        self._draining = True

    def end(self) -> None:
        """The connection is gone."""
        self._draining = False
        self._settle()

    def acknowledged(self, handle: int, refusal: str = "") -> str:
        """Take in the broker's answer to a publication; return the publication's token, if it had one and was accepted.

        A record that the broker refuses stays in the spool, and is sent again on the next connection.
        """
        sent = self._under_way.pop(handle, None)
        token = self._tokens.pop(handle, "")
        if sent is not None:
            self._bytes -= sent.size
        if refusal:
            self._grumble(refusal)
            return ""
        if sent is not None:
            self._done.append(sent.seq)
        return token

    def drain(self) -> None:
        """Remove what has arrived and send the next records of the spool, as soon as half the window is free."""
        if len(self._under_way) > REFILL or self._bytes > WINDOW_BYTES // 2:
            return
        self._settle()
        if not self._draining or self._connection is None or self._sent >= self._spool.last:
            return
        for record in self._spool.after(self._sent, WINDOW - len(self._under_way), WINDOW_BYTES - self._bytes):
            handle = self._connection.publish(record.topic, record.payload, retain=False)
            if handle is None:
                self._draining = False
                return
            self._under_way[handle] = _Sent(record.seq, len(record.payload))
            self._bytes += len(record.payload)
            self._sent = record.seq

    def close(self) -> None:
        """Let the spool forget what has arrived."""
        self._settle()

    def _settle(self) -> None:
        if not self._done:
            return
        try:
            self._spool.remove(self._done)
        except DatabaseFullError:
            return  # tried again with the next; at worst they are sent once more, which the receiver can tell
        self._done.clear()

    def _grumble(self, refusal: str) -> None:
        if not self._refused:
            self._refused = True
            _log.warning("the broker refuses what is published: %s; records wait for the next connection", refusal)
