"""A controller's connection, at brokers that do not do what they should."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from reconvene_agent.cli.fleet import hub as hubs
from reconvene_agent.cli.fleet.hub import Heard, Hub, NoBrokerError
from reconvene_agent.daemon.broker.link import Link
from support.brokers import HOST, Bus, Mosquitto, counterfeit

FILTER = "te/device/+/service/reconvene-agent/status/health"


def hub(port: int, quiet_s: float = 0.3) -> Hub:
    return Hub(Link(HOST, port, "operator", "3.1.1", 30, session_s=0), (FILTER,), quiet_s)


@contextmanager
def broker_that(suback: bytes, then: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a broker that accepts a client, answers its subscription, and goes on as it likes."""

    def handle(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"\x20\x02\x00\x00")
        client.recv(1000)
        client.sendall(b"\x90\x03\x00\x01" + suback)
        then(client)

    with counterfeit(handle) as port:
        yield port


def test_a_subscription_that_is_refused_is_told() -> None:
    with (
        broker_that(b"\x80", lambda client: client.recv(1000)) as port,
        pytest.raises(NoBrokerError, match="the broker does not let us subscribe to te/device/") as caught,
        hub(port),
    ):
        pass
    assert caught.value.exit_code == 3


def test_a_command_that_the_broker_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "DELIVER_S", 0.5)
    over = threading.Event()
    with broker_that(b"\x01", lambda _: over.wait(20) and None) as port, hub(port) as connected:
        with pytest.raises(NoBrokerError, match="the broker has not taken 1 of 1 messages"):
            connected.deliver({"t": b"x"})
        over.set()


def test_a_broker_that_leaves_while_it_is_commanded_is_told() -> None:
    with (
        broker_that(b"\x01", lambda client: client.recv(1) and None) as port,
        hub(port) as connected,
        pytest.raises(NoBrokerError, match="the broker has not taken 2 of 2 messages"),
    ):
        connected.deliver({"t": b"x", "u": b"y"})


def test_what_is_heard_while_delivering_is_not_lost(broker: Mosquitto) -> None:
    topic = FILTER.replace("+", "b1")
    with Bus(broker.port) as bus, hub(broker.port) as connected:
        bus.send(topic, b"{}", retain=False)
        bus.wait_topic(topic)
        connected.deliver({f"elsewhere/{number}": b"x" for number in range(100)})
        assert Heard(topic, b"{}", 2) in list(connected.until_quiet())


def test_measurements_and_repetitions_keep_nobody_waiting(broker: Mosquitto) -> None:
    topic = FILTER.replace("+", "b1")
    stop = threading.Event()
    with Bus(broker.port) as bus, hub(broker.port) as connected:

        def chatter() -> None:
            while not stop.wait(0.05):
                bus.send(topic, b"{}", retain=False)

        talker = threading.Thread(target=chatter)
        talker.start()
        heard = sum(1 for _ in connected.until_quiet())
        stop.set()
        talker.join()
    assert 1 <= heard < 100
