"""The one queue into the owner's thread: bounded for adapters, and never in the way of who must not wait."""

from __future__ import annotations

import queue
import threading

from reconvene_agent.daemon.events import Delivered, Event

CAPACITY = 256


class Inbox:
    """Events in order of arrival. A full inbox makes adapters wait, which slows down whatever floods it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Event | Delivered, bool]] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(CAPACITY)

    def post(self, event: Event | Delivered) -> None:
        """Post an event from an adapter's thread; waits while the inbox is full."""
        self._room.acquire()
        self._queue.put((event, True))

    def post_now(self, event: Event | Delivered) -> None:
        """Post from the owner's own thread, or while holding what the owner needs: never waits."""
        self._queue.put((event, False))

    def get(self, timeout: float) -> Event | Delivered | None:
        """Return the next event, or None when none came within ``timeout`` seconds."""
        try:
            event, counted = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if counted:
            self._room.release()
        return event
