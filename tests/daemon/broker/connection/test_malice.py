from __future__ import annotations

import queue
import random
import socket
from pathlib import Path

import pytest

from support.brokers import (
    HOST,
    counterfeit,
)
from support.ears import SUBSCRIPTIONS, Connect


def test_somebody_else_on_the_port(connect: Connect) -> None:
    def http(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with counterfeit(http) as port:
        _, ear = connect(port)
        assert ear.next("disconnected")[1] == f"{HOST}:{port} does not answer as an MQTT broker"


CONNACK = b"\x20\x03\x00\x00\x00"
SUBACK = b"\x90\x05\x00\x01\x00\x01\x01"
MALICE = {
    "a topic that is no text": b"\x30\x05\x00\x02\xff\xfe\x00",
    "a topic longer than its packet": b"\x30\x03\xff\xffx",
    "an endless length": b"\x30\xff\xff\xff\xff\xff\xff",
    "a packet of no kind": b"\x00\x00",
    "an acknowledgement of nothing": b"\x40\x02\x00\x63",
    "a short acknowledgement": b"\x40\x01\x00",
    "unknown properties": b"\x30\x06\x00\x01x\x02\x7f\x7f",
    "a goodbye": b"\xe0\x00",
    "a disordered goodbye": b"\xe0\x05\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("words", MALICE.values(), ids=MALICE.keys())
def test_malice_of_a_broker_ends_at_most_the_connection(connect: Connect, words: bytes) -> None:
    visits: queue.SimpleQueue[int] = queue.SimpleQueue()

    def speak(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(CONNACK)
        client.recv(65536)
        client.sendall(SUBACK + words)
        visits.put(1)
        client.settimeout(0.3)
        client.recv(65536)

    with counterfeit(speak) as port:
        _, ear = connect(port, protocol="5")
        for _ in range(3):
            visits.get(timeout=10)
        assert ear.next("connected") == ("connected", "5")
        assert ear.next("disconnected")


def test_noise_of_a_broker_ends_at_most_the_connection(connect: Connect) -> None:
    noise, rounds = random.Random(7), 30
    visits: queue.SimpleQueue[int] = queue.SimpleQueue()

    def speak(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(CONNACK)
        client.recv(65536)
        client.sendall(SUBACK + noise.randbytes(noise.randrange(1, 60)))
        visits.put(1)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(1)
        client.recv(65536)

    with counterfeit(speak) as port:
        connect(port, protocol="5")
        for _ in range(rounds):
            visits.get(timeout=10)


def test_a_subscription_that_is_refused_is_told(connect: Connect, tmp_path: Path) -> None:
    def speak(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(CONNACK)
        client.recv(65536)
        client.sendall(b"\x90\x05\x00\x01\x00\x87\x01")
        client.recv(100)

    with counterfeit(speak) as port:
        _, ear = connect(port, protocol="5")
        reason = ear.next("connected", "disconnected")[1]
        assert reason == f"the broker does not let us subscribe to {SUBSCRIPTIONS[0]}"
