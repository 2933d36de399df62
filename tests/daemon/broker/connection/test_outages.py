from __future__ import annotations

from pathlib import Path

from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.link import Link
from support.brokers import (
    HOST,
    Mosquitto,
    free_port,
)
from support.ears import Connect, Ear


def test_a_broker_that_appears_later_is_found(connect: Connect, tmp_path: Path) -> None:
    late = Mosquitto(tmp_path / "late")
    connection, ear = connect(late.port)
    _, reason, retry_s = ear.next("disconnected")
    assert reason == f"{HOST}:{late.port} cannot be reached: Connection refused"
    assert retry_s == 0.05
    assert connection.publish("x", b"", retain=False) is None
    with late:
        assert ear.next("connected") == ("connected", "5")


def test_a_broker_that_restarts_is_found_again_and_keeps_what_is_retained(connect: Connect, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "restarting") as broker:
        connection, ear = connect(broker.port)
        ear.next("connected")
        connection.publish("kept", b"1", retain=True)
        first = ear.next("acknowledged")[1]
        broker.stop()
        assert ear.next("disconnected")[1].startswith("the connection was lost")
        assert connection.publish("lost", b"", retain=True) is None
        broker.start()
        assert ear.next("connected") == ("connected", "5")
        second = connection.publish("kept", b"2", retain=True)
        assert ear.next("acknowledged")[1] == second
        assert second is not None
        assert second > first, "a new connection has handles of its own"


def test_a_name_that_does_not_exist(connect: Connect) -> None:
    _, ear = connect(1883, host="no-such-host.invalid")
    assert ear.next("disconnected")[1].startswith("no-such-host.invalid:1883 cannot be reached: ")


def test_closing_before_there_is_a_broker_is_quick(connect: Connect) -> None:
    connection, ear = connect(free_port())
    ear.next("disconnected")
    connection.close(2)


def test_closing_what_never_began(connect: Connect) -> None:
    link = Link(HOST, free_port(), "x", "auto", 30)
    Connection(link, None, (), Ear()).close(1)
