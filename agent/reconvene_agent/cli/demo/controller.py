"""A small fleet controller: sends one command to one agent over MQTT and follows what the agent says."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.cli.demo.broker import PROTOCOL
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.link import Link


class Message(Struct, frozen=True):
    """One message of the agent: the topic below its service, and the JSON document (empty for a cleared topic)."""

    topic: str
    document: dict[str, Any]


class Controller:
    """Hears everything one agent says. Also the listener of its own connection."""

    def __init__(self, host: str, port: int, topics: Topics) -> None:
        self._topics = topics
        self._heard: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        link = Link(host=host, port=port, client_id="demo-controller", protocol=PROTOCOL, keepalive_s=60)
        self._connection = Connection(link, None, (f"{topics.service}/#",), self)

    def connected(self, protocol: str) -> None:  # noqa: ARG002 - the listener's signature
        self._heard.put(None)

    def disconnected(self, reason: str, retry_s: float) -> None:
        """Nothing to do: the connection tries again, and whoever waits has a deadline."""

    def acknowledged(self, handle: int, refusal: str) -> None:
        """Nothing to do: the agent's answer is the acknowledgement that counts."""

    def received(self, topic: str, payload: bytes | None, size: int) -> None:  # noqa: ARG002
        document = msgspec.json.decode(payload, type=dict[str, Any]) if payload else {}
        self._heard.put(Message(topic.removeprefix(self._topics.service + "/"), document))

    def connect(self, timeout_s: float) -> None:
        """Connect to the broker.

        Raises:
            AgentError: there is no connection in time.
        """
        self._connection.start()
        try:
            self._heard.get(timeout=timeout_s)
        except queue.Empty as error:
            raise AgentError(f"the controller has no broker after {timeout_s:g} s") from error

    def send(self, op: str, command_id: str, args: dict[str, Any]) -> None:
        """Publish a command, retained."""
        payload = msgspec.json.encode({"status": "init", "args": args, "requester": "demo"})
        self._connection.publish(self._topics.command(op, command_id), payload, retain=True)

    def clear(self, op: str, command_id: str) -> None:
        """Clear a finished command."""
        self._connection.publish(self._topics.command(op, command_id), b"", retain=True)

    def hear_until(
        self,
        wanted: Callable[[Message], bool],
        on_message: Callable[[Message], None],
        timeout_s: float,
        alive: Callable[[], None],
    ) -> Message:
        """Hand every message to ``on_message`` and return the first one that is ``wanted``; ``alive`` may raise meanwhile.

        Raises:
            AgentError: TIMED_OUT when it does not come in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            alive()
            try:
                message = self._heard.get(timeout=0.5)
            except queue.Empty:
                continue
            if message is not None:
                on_message(message)
                if wanted(message):
                    return message
        raise AgentError(f"the agent did not answer within {timeout_s:g} s", ErrorCode.TIMED_OUT)

    def close(self) -> None:
        self._connection.close(1.0)
