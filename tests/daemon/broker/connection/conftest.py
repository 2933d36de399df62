"""A broker, a bus and connections, for all tests of the connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from reconvene_agent.daemon.broker import backoff
from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.link import Link
from support.brokers import (
    HOST,
    Bus,
    Mosquitto,
)
from support.ears import SUBSCRIPTIONS, WILL, Connect, Ear
from support.waiting import until


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Return a function that connects to a port, with retries that come soon."""
    monkeypatch.setattr(backoff, "delay", lambda *_: 0.05)
    before = set(threading.enumerate())
    made: list[Connection] = []

    def begin(port: int, **settings: Any) -> tuple[Connection, Ear]:
        link = Link(**{"host": HOST, "port": port, "client_id": "x", "protocol": "auto", "keepalive_s": 30, **settings})
        ear = Ear()
        made.append(Connection(link, WILL, SUBSCRIPTIONS, ear))
        made[-1].start()
        return made[-1], ear

    yield begin
    for connection in made:
        connection.close(2)
    until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def bus(broker: Mosquitto) -> Iterator[Bus]:
    with Bus(broker.port) as connected:
        yield connected
