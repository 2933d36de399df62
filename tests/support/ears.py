"""An ear on a connection to a broker."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from reconvene_agent.daemon.broker.connection import Connection, Will

TOPIC = "te/device/x/service/reconvene-agent"
WILL = Will(f"{TOPIC}/status/health", b'{"status":"down"}')
SUBSCRIPTIONS = (f"{TOPIC}/cmd/+/+", WILL.topic)


class Ear:
    """Hears of a connection."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def connected(self, protocol: str) -> None:
        self.heard.put(("connected", protocol))

    def disconnected(self, reason: str, retry_s: float) -> None:
        self.heard.put(("disconnected", reason, retry_s))

    def received(self, topic: str, payload: bytes | None, size: int) -> None:
        self.heard.put(("received", topic, payload, size))

    def acknowledged(self, handle: int, refusal: str) -> None:
        self.heard.put(("acknowledged", handle, refusal) if refusal else ("acknowledged", handle))

    def next(self, *kinds: str, seconds: float = 20.0) -> tuple[Any, ...]:
        """Return what is heard next of these kinds."""
        while (event := self.heard.get(timeout=seconds))[0] not in kinds:
            pass
        return event


Connect = Callable[..., tuple[Connection, Ear]]
