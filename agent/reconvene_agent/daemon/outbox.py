"""What leaves for the broker: publications of state at once, records of the spool in order and a few at a time."""

from __future__ import annotations

from reconvene_agent.daemon.mqtt import Connection
from reconvene_agent.daemon.spool import Spool

# Brokers queue a limited number of messages for a client; a drained backlog must not push commands out.
IN_FLIGHT = 20


class Outbox:
    """Matches the broker's acknowledgements to what was published. Used by the owner's thread alone."""

    def __init__(self, connection: Connection | None, spool: Spool) -> None:
        self._connection = connection
        self._spool = spool
        self._tokens: dict[int, str] = {}
        self._records: dict[int, int] = {}
        self._sent = 0
        self._draining = False

    def publish(self, topic: str, payload: bytes, retain: bool, token: str) -> None:
        """Publish now; without a connection nothing happens, since state is announced anew on the next one."""
        handle = self._connection.publish(topic, payload, retain) if self._connection is not None else None
        if handle is not None and token:
            self._tokens[handle] = token

    def begin(self) -> None:
        """A connection begins: what was under way on the last one is sent again."""
        self._tokens.clear()
        self._records.clear()
        self._sent = 0
        self._draining = True

    def end(self) -> None:
        """The connection is gone."""
        self._draining = False

    def acknowledged(self, handle: int) -> str:
        """Take in an acknowledgement; return the token of the publication it was for, if it had one."""
        seq = self._records.pop(handle, None)
        if seq is not None:
            self._spool.remove(seq)
        return self._tokens.pop(handle, "")

    def drain(self) -> None:
        """Send the next records of the spool, as far as the window allows."""
        if not self._draining or self._connection is None:
            return
        for record in self._spool.after(self._sent, IN_FLIGHT - len(self._records)):
            handle = self._connection.publish(record.topic, record.payload, retain=False)
            if handle is None:
                self._draining = False
                return
            self._records[handle] = record.seq
            self._sent = record.seq
