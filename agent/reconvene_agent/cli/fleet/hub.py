"""A controller's connection to the broker: what comes over it, as a queue that one thread reads."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from reconvene_agent.core.errors import EXIT_NOT_RUNNING, AgentError
from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.link import Link

CONNECT_S = 45.0
CAPACITY = 4096
SETTLE_MOST_S = 60.0
DELIVER_S = 30.0
FIRST_WAIT = 3.0
"""How many times longer the very first retained message may take to come."""


class Online(Struct, frozen=True):
    """The broker has accepted us and our subscriptions; what it retains follows."""


class Offline(Struct, frozen=True):
    """There is no connection; the next try comes by itself."""

    reason: str


class Heard(Struct, frozen=True):
    """A message; its payload is None when it is too large to be one of ours."""

    topic: str
    payload: bytes | None
    size: int


class Delivered(Struct, frozen=True):
    """The broker has taken over the publication with this handle, or refused it."""

    handle: int
    refusal: str = ""


News = Online | Offline | Heard | Delivered


class NoBrokerError(AgentError):
    """The broker does not answer, or does not let us in."""

    exit_code = EXIT_NOT_RUNNING


class Hub:
    """Connects, and again when the connection is lost. All but the listener's part belongs to one thread."""

    def __init__(self, link: Link, filters: tuple[str, ...], quiet_s: float) -> None:
        """Prepare; ``connect`` begins. When nothing new came for ``quiet_s`` seconds, all that is retained counts as heard.

        Raises:
            AgentError: the TLS files cannot be used.
        """
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(CAPACITY)
        self._early: deque[News] = deque()
        self._quiet_s = quiet_s
        self._connection = Connection(link, None, filters, self)

    # --- the listener's part, in the network thread ---------------------------------------------------------------------------

    def connected(self, protocol: str) -> None:  # noqa: ARG002 - the listener's signature
        self._news.put(Online())

    def disconnected(self, reason: str, retry_s: float) -> None:  # noqa: ARG002
        self._news.put(Offline(reason))

    def received(self, topic: str, payload: bytes | None, size: int) -> None:
        self._room.acquire()  # who sends faster than we read has to wait
        self._news.put(Heard(topic, payload, size))

    def acknowledged(self, handle: int, refusal: str) -> None:
        self._news.put(Delivered(handle, refusal))

    # --- for the owner ------------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect; what is heard meanwhile is kept.

        Raises:
            NoBrokerError: the first try fails.
        """
        self._connection.start()
        deadline = time.monotonic() + CONNECT_S
        early: list[News] = []
        while time.monotonic() < deadline:
            news = self.next(1.0)
            if isinstance(news, Offline):
                raise NoBrokerError(news.reason)
            if news is not None:
                early.append(news)
            if isinstance(news, Online):
                self._early.extend(early)
                return
        raise NoBrokerError(f"the broker has not accepted us after {CONNECT_S:.0f} s")

    def next(self, timeout_s: float) -> News | None:
        """Return what happens next, or None when nothing does in time."""
        if self._early:
            return self._early.popleft()
        try:
            news = self._news.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(news, Heard):
            self._room.release()
        return news

    def until_quiet(self) -> Iterator[News]:
        """Yield what comes until no topic was new for a while: what the broker retains is then here.

        Measurements are not retained, so they are no sign that more of it is to come; nor is what comes on a topic once more.
        """
        topics: set[str] = set()
        end = time.monotonic() + SETTLE_MOST_S
        quiet_at = time.monotonic() + FIRST_WAIT * self._quiet_s
        while (now := time.monotonic()) < min(end, quiet_at):
            news = self.next(min(end, quiet_at) - now)
            if news is None:
                return
            if isinstance(news, Heard) and news.topic not in topics and "/m/" not in news.topic:
                topics.add(news.topic)
                quiet_at = time.monotonic() + self._quiet_s
            yield news

    def publish(self, topic: str, payload: bytes) -> int | None:
        """Publish retained; return what its delivery will be told by, or None without a connection."""
        return self._connection.publish(topic, payload, retain=True)

    def deliver(self, messages: dict[str, bytes]) -> None:
        """Publish and wait until the broker has every one; what is heard meanwhile is kept for later.

        Raises:
            NoBrokerError: it refuses one, or has not taken them in time.
        """
        handles = [self.publish(topic, payload) for topic, payload in messages.items()]
        waiting = set(handles) - {None}
        lost = handles.count(None)
        deadline = time.monotonic() + DELIVER_S
        kept: list[News] = []
        while waiting or lost:
            left_s = deadline - time.monotonic()
            news = None if lost or left_s <= 0 else self.next(left_s)
            if news is None or isinstance(news, Offline):
                self._early.extendleft(reversed(kept))
                raise NoBrokerError(f"the broker has not taken {len(waiting) + lost} of {len(messages)} messages")
            if isinstance(news, Delivered):
                if news.refusal:
                    raise NoBrokerError(f"the broker refuses what is sent: {news.refusal}")
                waiting.discard(news.handle)
                deadline = time.monotonic() + DELIVER_S
            else:
                kept.append(news)
        self._early.extendleft(reversed(kept))

    def close(self) -> None:
        self._connection.close(2.0)

    def __enter__(self) -> Hub:
        try:
            self.connect()
        except BaseException:
            self.close()  # who is not let in would go on trying
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def new_client_id() -> str:
    """Return a name that no other client has."""
    return f"reconvene-fleet-{uuid.uuid4().hex[:12]}"
