"""A short visit to the broker, step by step, in the caller's thread: what it says to a CONNECT, a subscription, a publication.

The agent's own connection is left alone: another client id, no last will, and a session that ends with the visit.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from msgspec import Struct

from reconvene_agent.core.errors import AgentError
from reconvene_agent.daemon.broker.client import new_client
from reconvene_agent.daemon.broker.link import Link

_STEP_S = 0.2


class Greeting(Struct, frozen=True):
    """What a broker answered to CONNECT.

    Attributes:
        accepted: whether it lets us in.
        reason: its answer in words.
        code: its answer as a number of MQTT 5.
        retains: whether it keeps retained messages, as far as it says.
        qos: the highest quality of service that it takes.
        largest: bytes of the largest packet that it takes; None when it does not say.
    """

    accepted: bool
    reason: str
    code: int
    retains: bool = True
    qos: int = 2
    largest: int | None = None


class LostError(AgentError):
    """The broker hung up in the middle, or said nothing for too long."""


class Visit:
    """One visit; a context that ends it. Each method waits ``patience_s`` at most and raises LostError after it.

    ``doing`` says what was last asked of the broker.
    """

    def __init__(self, link: Link, protocol: str, context: ssl.SSLContext | None, patience_s: float) -> None:
        """Connect; ``protocol`` is ``5`` or ``3.1.1``, and ``link.session_s`` must be 0."""
        self.doing = "connecting"
        self._patience_s = patience_s
        self._greeting: Greeting | None = None
        self._ended = ""
        self._subscribed: dict[int, list[str]] = {}
        self._published: dict[int, str] = {}
        self._came: set[str] = set()
        self._protocol = protocol
        client = self._client = new_client(link, protocol, context)
        client.connect_timeout = patience_s
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        try:
            client.connect(link.host, link.port, link.keepalive_s)
        except (OSError, ValueError) as error:
            raise LostError(str(getattr(error, "strerror", None) or error)) from error

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop(0)

    def greeting(self) -> Greeting:
        """Return what the broker answered to CONNECT."""
        self._until(lambda: self._greeting is not None)
        assert self._greeting is not None
        return self._greeting

    def subscribe(self, topic: str) -> str:
        """Subscribe, and return why the broker refuses; empty when it does not."""
        self.doing = f"subscribing to {topic}"
        _, mid = self._client.subscribe(topic, 1)
        assert mid is not None
        self._until(lambda: mid in self._subscribed)
        return next(iter(self._subscribed[mid]), "")

    def publish(self, topic: str) -> str:
        """Publish nothing at all, not retained, and return why the broker refuses; empty when it does not say that it does.

        Only MQTT 5 can say so.
        """
        self.doing = f"publishing to {topic}"
        mid = self._client.publish(topic, b"", qos=1, retain=False).mid
        self._until(lambda: mid in self._published)
        return self._published[mid]

    def returned(self, topics: Iterable[str], within_s: float) -> set[str]:
        """Return which of the topics something came on, waiting so long for those that stay away."""
        wanted = set(topics)
        deadline = time.monotonic() + within_s
        while not wanted <= self._came and time.monotonic() < deadline and not self._ended:
            self._turn()
        return wanted & self._came

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience_s
        while not done():
            if self._ended:
                raise LostError(self._ended)
            if time.monotonic() >= deadline:
                raise LostError(f"nothing was said for {self._patience_s:g} s")
            self._turn()

    def _turn(self) -> None:
        """Let paho read and write for a moment; what it cannot make sense of ends the visit as well."""
        code = self._client.loop(_STEP_S)
        if code and not self._ended:
            self._ended = str(code)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        told = vars(properties) if properties is not None else {}
        self._greeting = Greeting(
            accepted=not code.is_failure,
            reason=code.getName(),
            code=code.value,
            retains=told.get("RetainAvailable", 1) != 0,
            qos=told.get("MaximumQoS", 2),
            largest=told.get("MaximumPacketSize"),
        )

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._ended = f"the connection was lost: {code.getName()}" if code.is_failure else "the broker hung up"

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, codes: list[Any], _properties: Any) -> None:
        self._subscribed[mid] = [code.getName() for code in codes if code.is_failure]

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: Any, _properties: Any) -> None:
        self._published[mid] = code.getName() if code.is_failure else ""

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self._came.add(message.topic)
