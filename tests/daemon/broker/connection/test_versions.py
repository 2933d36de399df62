from __future__ import annotations

import socket

import pytest

from support.brokers import (
    Mosquitto,
    amqtt,
    counterfeit,
    only_3_1_1,
    protocol_level,
)
from support.ears import Connect


def test_a_broker_that_hangs_up_on_mqtt_5_is_spoken_to_in_3_1_1(connect: Connect, broker: Mosquitto) -> None:
    with counterfeit(only_3_1_1(broker.port)) as port:
        connection, ear = connect(port, client_id="hangs-up")
        assert ear.next("connected", "disconnected") == ("connected", "3.1.1")
        connection.publish("x", b"", retain=False)
        ear.next("acknowledged")


def test_a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1(connect: Connect) -> None:
    levels: list[int] = []

    def refuse(client: socket.socket) -> None:
        levels.append(protocol_level(client.recv(65536)))
        client.sendall(b"\x20\x02\x00\x01")  # a CONNACK of 3.1.1: unacceptable protocol version
        client.recv(100)

    with counterfeit(refuse) as port:
        _, ear = connect(port, client_id="refuses")
        ear.next("disconnected")
    assert levels[:2] == [5, 4]


def test_a_broker_that_hangs_on_mqtt_5_is_spoken_to_in_3_1_1(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconvene_agent.daemon.broker.connection.ANSWER_TIMEOUT_S", 0.5)
    with amqtt() as port:
        connection, ear = connect(port)
        assert ear.next("connected", "disconnected") == ("connected", "3.1.1")
        connection.publish("x", b"", retain=False)
        ear.next("acknowledged")


def test_a_version_that_is_asked_for_is_not_changed(connect: Connect, broker: Mosquitto) -> None:
    with counterfeit(only_3_1_1(broker.port)) as port:
        _, ear = connect(port, protocol="5", client_id="only-5")
        for _ in range(3):
            assert ear.next("connected", "disconnected")[0] == "disconnected"
