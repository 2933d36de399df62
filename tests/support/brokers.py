"""Real brokers, a bus that shows what passes over it, and counterfeit brokers that misbehave."""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.waiting import until

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


class Mosquitto:
    """A Mosquitto on a port of its own, with ``settings`` added to its configuration; what it retains survives a restart."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true\n") -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.fail("Mosquitto is not installed: './install.sh test' does it, or 'apt install mosquitto'")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(self._written(folder, settings))
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def _written(self, folder: Path, settings: str) -> str:
        return (
            f"listener {self.port} {HOST}\npersistence true\npersistence_location {folder}/\nuser root\n"
            f"max_queued_messages 0\nlog_dest file {folder}/mosquitto.log\n{settings}"
        )

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: listening(self.port))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """Let it die without a chance to write anything down."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"


_AMQTT = """
import asyncio, json, sys
from amqtt.broker import Broker
async def main():
    broker = Broker(json.loads(sys.argv[1]))
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextmanager
def amqtt(passwords: Path | None = None, **tls: str) -> Iterator[int]:
    """Run an amqtt, which speaks MQTT 3.1.1 only, and hangs on anything newer; yield its port.

    With ``passwords`` it wants a user of that file; ``tls`` names ``certfile`` and ``keyfile``.
    """
    port = free_port()
    listener = {"type": "tcp", "bind": f"{HOST}:{port}", "ssl": bool(tls), **tls}
    kind, settings = (
        ("AnonymousAuthPlugin", {"allow_anonymous": True})
        if passwords is None
        else ("FileAuthPlugin", {"password_file": str(passwords)})
    )
    settings_json = msgspec.json.encode(
        {"listeners": {"default": listener}, "plugins": {f"amqtt.plugins.authentication.{kind}": settings}}
    ).decode()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _AMQTT, settings_json], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: listening(port), 20)
        yield port
    finally:
        process.kill()
        process.wait()


class Message(Struct, frozen=True):
    """One message as the bus saw it."""

    topic: str
    payload: bytes
    retain: bool

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.payload)


class Bus:
    """A client of the broker that sees every message, or those that match a filter, and can publish: the fleet's controller.

    Its session outlives a connection, so it misses nothing while the broker is away. ``prepare`` gives the client what the
    broker asks for, ``protocol`` is the version of MQTT it speaks.
    """

    def __init__(
        self,
        port: int,
        prepare: Callable[[paho.Client], object] = lambda _: None,
        protocol: int = paho.MQTTv5,
        matching: str = "#",
    ) -> None:
        self.seen: list[Message] = []
        self._news = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        prepare(self._client)
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(matching, 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._on_message
        session = None
        if protocol == paho.MQTTv5:
            session = Properties(PacketTypes.CONNECT)
            session.SessionExpiryInterval = 600
        self._client.connect(HOST, port, properties=session)
        self._client.loop_start()
        assert ready.wait(10)

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._news:
            self.seen.append(Message(message.topic, bytes(message.payload), message.retain))
            self._news.notify_all()

    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self._client.is_connected()

    def send(self, topic: str, payload: bytes | dict[str, Any], retain: bool = True) -> None:
        """Publish and wait until the broker has it."""
        content = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        self._client.publish(topic, content, qos=1, retain=retain).wait_for_publish(10)

    def wait(self, wanted: Callable[[Message], Any], seconds: float = 20.0, after: int = 0) -> Message:
        """Return the first message seen since number ``after`` that is wanted."""
        found: list[Message] = []

        def look() -> bool:
            found[:] = [message for message in self.seen[after:] if wanted(message)]
            return bool(found)

        with self._news:
            assert self._news.wait_for(look, seconds), f"not seen within {seconds:g} s; seen: {self.topics(after)}"
        return found[0]

    def wait_topic(self, topic: str, seconds: float = 20.0, after: int = 0) -> Message:
        return self.wait(lambda message: message.topic == topic, seconds, after)

    def topics(self, after: int = 0) -> list[str]:
        return [message.topic for message in self.seen[after:]]

    def on(self, topic: str) -> list[Message]:
        with self._news:
            return [message for message in self.seen if message.topic == topic]


def forget_session(port: int, client_id: str) -> None:
    """Let a broker drop what it still holds for a client: messages that wait for it, and a last will that is delayed.

    The client is played by hand: a session that begins anew, in MQTT 5, and ends with its connection.
    """
    name = client_id.encode()
    body = b"\x00\x04MQTT\x05\x02\x00\x0a\x00" + len(name).to_bytes(2, "big") + name
    with socket.create_connection((HOST, port), 10) as client:
        client.sendall(b"\x10" + bytes([len(body)]) + body)
        assert client.recv(1) == b"\x20"
        client.sendall(b"\xe0\x00")
        while client.recv(256):
            pass


def retained(port: int, topic: str) -> Message | None:
    """Return what the broker keeps under a topic, as a newcomer sees it."""
    with Bus(port) as bus:
        marker = "marker"
        bus.send(marker, b"x", retain=False)
        bus.wait_topic(marker)
        return next((message for message in bus.on(topic) if message.retain), None)


def wait_retained(port: int, topic: str) -> Message:
    """Return what the broker keeps under a topic, as a newcomer sees it, once there is something."""
    found = until(lambda: retained(port, topic))
    assert found is not None
    return found


def wait_cleared(port: int, topic: str) -> None:
    """Wait until the broker keeps nothing under a topic."""
    until(lambda: retained(port, topic) is None)


Handler = Callable[[socket.socket], None]


@contextmanager
def counterfeit(handle: Handler) -> Iterator[int]:
    """Listen and let ``handle`` talk to each client, one after the other; yield the port."""
    listener = socket.create_server((HOST, 0))
    clients: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            clients.put(client)
            with client, contextlib.suppress(OSError):
                client.settimeout(20)
                handle(client)

    thread = threading.Thread(target=accept, name="counterfeit", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        while not clients.empty():
            with contextlib.suppress(OSError):
                clients.get().shutdown(socket.SHUT_RDWR)
        thread.join(10)


def protocol_level(connect: bytes) -> int:
    """Return the protocol level in a CONNECT packet: 5, or 4 for 3.1.1."""
    return connect[connect.index(b"MQTT") + 4]


def only_3_1_1(port: int) -> Handler:
    """Return a handler that hangs up on MQTT 5 and passes MQTT 3.1.1 on to the broker at ``port``."""

    def handle(client: socket.socket) -> None:
        connect = client.recv(65536)
        if protocol_level(connect) != 4:
            return
        with socket.create_connection((HOST, port)) as broker:
            broker.sendall(connect)
            back = threading.Thread(target=_copy, args=(broker, client), daemon=True)
            back.start()
            _copy(client, broker)
            back.join(10)

    return handle


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def pause(seconds: float) -> None:
    """Give what must not happen the time to happen."""
    time.sleep(seconds)


def secured(folder: Path) -> Mosquitto:
    """Return a broker that wants a user and a password: ``me`` and ``sesame``."""
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "me", "sesame"], check=True, capture_output=True)
    return Mosquitto(folder, f"allow_anonymous false\npassword_file {passwords}\n")
