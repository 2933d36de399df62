from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.broker.connection import MAX_PACKET
from support.brokers import (
    Bus,
    Mosquitto,
    counterfeit,
    retained,
)
from support.ears import TOPIC, WILL, Connect


@pytest.mark.parametrize(("protocol", "agreed"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_both_protocols_work_in_both_directions(
    connect: Connect, broker: Mosquitto, bus: Bus, protocol: str, agreed: str
) -> None:
    connection, ear = connect(broker.port, protocol=protocol, client_id=f"both-{protocol}")
    assert ear.next("connected") == ("connected", agreed)
    handle = connection.publish(f"{TOPIC}/e/x", b"hello", retain=False)
    assert ear.next("acknowledged") == ("acknowledged", handle)
    assert bus.wait_topic(f"{TOPIC}/e/x").payload == b"hello"
    bus.send(f"{TOPIC}/cmd/ping/{agreed}", b"{}", retain=False)
    assert ear.next("received") == ("received", f"{TOPIC}/cmd/ping/{agreed}", b"{}", 2)


def test_what_is_retained_arrives_after_connecting(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    bus.send(f"{TOPIC}/cmd/plan/9", b"retained")
    _, ear = connect(broker.port, client_id="retained")
    assert ear.next("received")[1:3] == (f"{TOPIC}/cmd/plan/9", b"retained")
    bus.send(f"{TOPIC}/cmd/plan/9", b"")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_was_sent_while_we_were_away_arrives_too(connect: Connect, broker: Mosquitto, bus: Bus, protocol: str) -> None:
    first, ear = connect(broker.port, protocol=protocol, client_id=f"away-{protocol}")
    ear.next("connected")
    first.close(2)
    bus.send(f"{TOPIC}/cmd/plan/8", b"missed you", retain=False)
    _, ear = connect(broker.port, protocol=protocol, client_id=f"away-{protocol}")
    assert ear.next("received")[1:3] == (f"{TOPIC}/cmd/plan/8", b"missed you")


def test_retained_publications_stay(connect: Connect, broker: Mosquitto) -> None:
    connection, ear = connect(broker.port, client_id="stay")
    ear.next("connected")
    connection.publish(f"{TOPIC}/twin/x", b"kept", retain=True)
    ear.next("acknowledged")
    message = retained(broker.port, f"{TOPIC}/twin/x")
    assert message is not None
    assert message.payload == b"kept"


@pytest.mark.parametrize("size", [MAX_PAYLOAD, MAX_PAYLOAD + 1, 900_000])
def test_a_message_over_the_limit_is_not_kept_and_its_size_is_told(
    connect: Connect, broker: Mosquitto, bus: Bus, size: int
) -> None:
    _, ear = connect(broker.port, client_id=f"size-{size}")
    ear.next("connected")
    bus.send(f"{TOPIC}/cmd/plan/7", b"x" * size, retain=False)
    _, _, payload, told = ear.next("received")
    assert told == size
    assert (payload is None) == (size > MAX_PAYLOAD)


def test_a_message_that_no_packet_may_hold_does_not_break_the_connection(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    _, ear = connect(broker.port, client_id="huge")
    ear.next("connected")
    bus.send(f"{TOPIC}/cmd/plan/6", b"x" * (MAX_PACKET + 1), retain=False)
    bus.send(f"{TOPIC}/cmd/plan/5", b"after", retain=False)
    assert ear.next("received", "disconnected")[1:3] == (f"{TOPIC}/cmd/plan/5", b"after")


def test_the_last_publication_still_leaves_when_it_is_closed(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    connection, ear = connect(broker.port, client_id="last")
    ear.next("connected")
    for number in range(50):
        connection.publish(f"{TOPIC}/last", b"%d" % number, retain=False)
    connection.close(5)
    bus.wait(lambda message: message.topic == f"{TOPIC}/last" and message.payload == b"49")
    assert connection.publish(f"{TOPIC}/last", b"late", retain=False) is None


def test_an_orderly_end_leaves_no_last_will(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    seen = len(bus.on(WILL.topic))
    connection, ear = connect(broker.port, protocol="3.1.1", client_id="orderly")
    ear.next("connected")
    connection.close(2)
    bus.send("marker", b"", retain=False)
    bus.wait_topic("marker")
    assert len(bus.on(WILL.topic)) == seen


def test_an_orderly_end_leaves_no_last_will_even_while_the_broker_is_still_sending(
    connect: Connect, broker: Mosquitto, bus: Bus
) -> None:
    for _ in range(20):
        connection, ear = connect(broker.port, protocol="3.1.1", client_id="interrupted")
        ear.next("connected")
        for number in range(10):
            bus.send(f"{TOPIC}/cmd/plan/{number}", bytes(2000), retain=False)
        ear.next("received")
        connection.close(2)
    bus.send("marker", b"", retain=False)
    bus.wait_topic("marker")
    assert not bus.on(WILL.topic)


def test_a_broker_that_does_not_hang_up_is_not_waited_for_long(connect: Connect) -> None:
    over = threading.Event()

    def cling(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"\x20\x02\x00\x00")
        client.recv(1000)
        client.sendall(b"\x90\x04\x00\x01\x01\x01")
        over.wait(20)

    with counterfeit(cling) as port:
        connection, ear = connect(port, protocol="3.1.1")
        ear.next("connected")
        connection.close(20)
        assert not connection._thread.is_alive()
        assert not over.is_set()
        over.set()


_LONELY = """
import sys, threading
from reconvene_agent.daemon.broker import connection, link
connection.WILL_DELAY_S = 1
class Ear:
    def connected(self, protocol): print("connected", flush=True)
    def __getattr__(self, name): return lambda *_: None
reach = link.Link("127.0.0.1", int(sys.argv[1]), "lonely-" + sys.argv[2], sys.argv[2], 30)
connection.Connection(reach, connection.Will("lonely/" + sys.argv[2], b"down"), ("x",), Ear()).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_last_will_is_published_when_the_process_is_killed(broker: Mosquitto, bus: Bus, protocol: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _LONELY, str(broker.port), protocol], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        process.kill()
    assert bus.wait_topic(f"lonely/{protocol}").payload == b"down"
    message = retained(broker.port, f"lonely/{protocol}")
    assert message is not None
