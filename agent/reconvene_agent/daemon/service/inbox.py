"""The one queue into the owner's thread: bounded for adapters, and never in the way of who must not wait."""

from __future__ import annotations

import queue
import threading

from reconvene_agent.daemon.events import Delivered, Event, Received

CAPACITY = 256
CAPACITY_BYTES = 1 << 20
"""So many bytes of payloads, or a single one that has more."""


class Inbox:
    """Events in order of arrival. A full inbox makes adapters wait, which slows down whatever floods it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Event | Delivered, int | None]] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._count = self._bytes = 0

    def post(self, event: Event | Delivered) -> None:
        """Post an event from an adapter's thread; waits while the inbox is full."""
        size = len(event.payload or b"") if isinstance(event, Received) else 0
        with self._room:
            self._room.wait_for(lambda: self._count < CAPACITY and (not self._bytes or self._bytes + size <= CAPACITY_BYTES))
            self._count += 1
            self._bytes += size
        self._queue.put((event, size))

    def post_now(self, event: Event | Delivered) -> None:
        """Post from the owner's own thread, or while holding what the owner needs: never waits."""
        self._queue.put((event, None))

    def get(self, timeout: float) -> Event | Delivered | None:
        """Return the next event, or None when none came within ``timeout`` seconds."""
        try:
            event, size = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if size is not None:
            with self._room:
                self._count -= 1
                self._bytes -= size
                self._room.notify_all()
        return event
