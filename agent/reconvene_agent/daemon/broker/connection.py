"""The MQTT connection: keeps connecting, tells what happens, publishes at QoS 1.

MQTT 5 is tried first and 3.1.1 when a broker does not speak it. Each connection gets a fresh client: what must not be lost
is kept by the journal and the spool, not here.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
import time
from typing import Any, Protocol

from msgspec import Struct
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.broker import backoff
from reconvene_agent.daemon.broker.client import Client, linger, new_client
from reconvene_agent.daemon.broker.link import Link
from reconvene_agent.daemon.security import tls

WILL_DELAY_S = 30
MAX_PACKET = 1 << 20
ANSWER_TIMEOUT_S = 5.0
STABLE_AFTER_S = 30.0
STALL_CHECK_S = 15.0
UNSUPPORTED_VERSION = 0x84
NOT_AUTHORIZED = 0x87


class Will(Struct, frozen=True):
    """What is published, retained: by the broker when we are gone, or as a greeting on each connection before all else."""

    topic: str
    payload: bytes


class Listener(Protocol):
    """Who hears of the connection; called from the network thread."""

    def connected(self, protocol: str) -> None:
        """The broker accepted us and our subscriptions."""

    def disconnected(self, reason: str, retry_s: float) -> None:
        """There is no connection; the next try comes in ``retry_s`` seconds."""

    def received(self, topic: str, payload: bytes | None, size: int) -> None:
        """A message came; its payload is None when it is too large to keep."""

    def acknowledged(self, handle: int, refusal: str) -> None:
        """The broker took over the publication with this handle, or, as MQTT 5 can tell, refused it for the reason given."""


class Connection:
    """Connects, and connects again, in a thread of its own until it is closed."""

    def __init__(
        self,
        link: Link,
        will: Will | None,
        subscriptions: tuple[str, ...],
        listener: Listener,
        greeting: Will | None = None,
    ) -> None:
        """Prepare; ``start`` begins.

        Raises:
            UsageError: the TLS files cannot be used.
        """
        self._link = link
        self._will = will
        self._greeting = greeting
        self._subscriptions = subscriptions
        self._listener = listener
        self._context = tls.tls_context(link.ca_file, link.cert_file, link.key_file) if link.tls else None
        self._protocol = "5" if link.protocol == "auto" else link.protocol
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._client: Client | None = None
        self._generation = 0
        self._last: paho.MQTTMessageInfo | None = None

    def start(self) -> None:
        self._thread.start()

    def publish(self, topic: str, payload: bytes, retain: bool) -> int | None:
        """Publish at QoS 1 and return the handle that its acknowledgement will carry; None without a connection."""
        client, generation = self._client, self._generation
        if client is None:
            return None
        client.count_publication()
        info = client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return None
        self._last = info
        return _handle(generation, info.mid)

    def close(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for the last publication to be acknowledged, then disconnect in order."""
        self._closing.set()
        client = self._client
        if client is not None:
            if self._last is not None:
                with contextlib.suppress(RuntimeError, ValueError):  # it was lost with its connection
                    self._last.wait_for_publish(timeout_s)
            client.disconnect()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            started = time.monotonic()
            talk = _Conversation(self, self._protocol)
            reason = talk.hold()
            self._client = None
            if self._closing.is_set():
                return
            if talk.established and time.monotonic() - started > STABLE_AFTER_S:
                attempt = 0
            if self._link.protocol == "auto" and talk.wrong_version:
                self._protocol = "3.1.1" if self._protocol == "5" else "5"
                # The other version is tried at once, but two refusals in a row are a refusal.
                if attempt % 2 == 0:
                    attempt += 1
                    continue
            wait_s = backoff.delay(attempt, random.random())
            attempt += 1
            self._listener.disconnected(reason, wait_s)
            self._closing.wait(wait_s)


class _Conversation:
    """One connection from beginning to end, with the paho client that holds it."""

    def __init__(self, owner: Connection, protocol: str) -> None:
        self._owner = owner
        self._protocol = protocol
        self._reason = ""
        self.established = False
        self.wrong_version = False
        self._greeted = False
        self._generation = 0
        self._answered = threading.Event()
        self._ended = threading.Event()

    def hold(self) -> str:
        """Connect and stay until the connection ends; return why it did."""
        link = self._owner._link
        client = self._make_client(link)
        try:
            if self._protocol == "5":
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.SessionExpiryInterval = link.session_s
                properties.MaximumPacketSize = MAX_PACKET
                client.connect(link.host, link.port, link.keepalive_s, clean_start=not link.session_s, properties=properties)
            else:
                client.connect(link.host, link.port, link.keepalive_s)
        except ssl.SSLError as error:
            return f"TLS with {link.host}:{link.port} failed: {tls.why(error)}"
        except (OSError, ValueError) as error:
            return f"{link.host}:{link.port} cannot be reached: {getattr(error, 'strerror', None) or error}"
        # paho's own network thread must do all reading and writing: without one, a publication from another thread would
        # write to the socket by itself, and two threads in one TLS connection corrupt it.
        client.loop_start()
        if self._answered.wait(ANSWER_TIMEOUT_S):
            while not self._ended.wait(STALL_CHECK_S):
                if client.stalled:
                    self._reason = f"{link.host}:{link.port} acknowledges nothing any more"
                    client.disconnect()
        client.loop_stop()
        if client.tls_error is not None and not self._greeted:
            self._reason = f"TLS with {link.host}:{link.port} failed: {tls.why(client.tls_error)}"
        elif not self._greeted:
            # A broker that does not know the version may hang up, or wait for ever for the rest of what it misread.
            self.wrong_version = True
            self._reason = f"{link.host}:{link.port} does not answer as an MQTT broker"
        return self._reason or "the connection was lost"

    def _make_client(self, link: Link) -> Client:
        owner = self._owner
        client = new_client(link, self._protocol, owner._context)
        client.when_over = self._on_over
        if owner._will is not None:
            properties = None
            if self._protocol == "5":
                properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
                properties.WillDelayInterval = WILL_DELAY_S
            client.will_set(owner._will.topic, owner._will.payload, qos=1, retain=True, properties=properties)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_socket_close = self._on_socket_close
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        owner._generation += 1
        self._generation = owner._generation
        return client

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        self._greeted = True
        self._answered.set()
        if code.is_failure:
            self.wrong_version = code.value == UNSUPPORTED_VERSION
            self._reason = f"the broker refused the connection: {code.getName()}"
            client.disconnect()
            return
        assert isinstance(client, Client)
        # paho does not look at it, and a broker hangs up on who sends more before it has acknowledged the first.
        client._max_inflight_messages = min(client.max_inflight_messages, getattr(properties, "ReceiveMaximum", 65535))
        if self._owner._greeting is not None:
            client.count_publication()
            client.publish(self._owner._greeting.topic, self._owner._greeting.payload, qos=1, retain=True)
        # From here on publications pass: what the broker kept for us may arrive, and want an answer, before it confirms the
        # subscriptions.
        self._owner._client = client
        client.subscribe([(topic, 1) for topic in self._owner._subscriptions])

    def _on_subscribe(self, client: paho.Client, _data: Any, _mid: int, codes: list[Any], _properties: Any) -> None:
        refused = [topic for topic, code in zip(self._owner._subscriptions, codes, strict=False) if code.is_failure]
        if refused:
            self._reason = f"the broker does not let us subscribe to {refused[0]}"
            client.disconnect()
            return
        self.established = True
        self._owner._listener.connected(self._protocol)

    def _on_publish(self, client: paho.Client, _data: Any, mid: int, code: Any, _properties: Any) -> None:
        assert isinstance(client, Client)
        client.count_acknowledgement()
        if code.value == NOT_AUTHORIZED:
            # MQTT 5 alone tells. What was refused must not count as delivered.
            self._reason = "the broker does not let us publish: the name it knows us by has no right to this topic"
            client.disconnect()
            return
        self._owner._listener.acknowledged(_handle(self._generation, mid), code.getName() if code.is_failure else "")

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if not self._reason and code.is_failure:
            self._reason = f"the connection was lost: {code.getName()}"

    def _on_socket_close(self, client: paho.Client, _data: Any, connected: Any) -> None:
        if not self._greeted and isinstance(client, Client) and isinstance(connected, ssl.SSLSocket):
            client.hear_last_words(connected)
        linger(connected)

    def _on_over(self, error: Exception | None) -> None:
        if error is not None:
            self._reason = f"the connection was given up: {type(error).__name__}: {error}"
        self._answered.set()
        self._ended.set()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # none of ours
        size = len(message.payload)
        kept = bytes(message.payload) if size <= MAX_PAYLOAD else None
        self._owner._listener.received(topic, kept, size)


def _handle(generation: int, mid: int) -> int:
    return generation << 16 | mid
