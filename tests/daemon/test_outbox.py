from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.daemon.outbox import IN_FLIGHT, Outbox
from reconvene_agent.daemon.spool import Spool


class Wire:
    """Plays the connection: notes what is published while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.sent: list[tuple[str, bool]] = []
        self.payloads: list[bytes] = []
        self._handles = 100

    def publish(self, topic: str, payload: bytes, retain: bool) -> int | None:
        if not self.up:
            return None
        self.sent.append((topic, retain))
        self.payloads.append(payload)
        self._handles += 1
        return self._handles


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db", "boot", 1 << 20)
    yield made
    made.close()


@pytest.fixture
def outbox(wire: Wire, spool: Spool) -> Outbox:
    return Outbox(wire, spool)  # type: ignore[arg-type]


def add(spool: Spool, count: int) -> None:
    for _ in range(count):
        spool.append("event", "e", {})


def left(spool: Spool) -> list[int]:
    return [record.seq for record in spool.after(0, 1000)]


def test_a_token_comes_back_with_its_acknowledgement(outbox: Outbox) -> None:
    outbox.publish("a", b"", True, "plan/1")
    outbox.publish("b", b"", False, "")
    assert outbox.acknowledged(101) == "plan/1"
    assert outbox.acknowledged(101) == ""
    assert outbox.acknowledged(102) == ""
    assert outbox.acknowledged(999) == ""


def test_nothing_of_the_spool_leaves_before_a_connection_begins(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 3)
    outbox.drain()
    assert wire.sent == []
    outbox.begin()
    outbox.drain()
    assert wire.sent == [("e", False)] * 3


def test_a_record_leaves_the_spool_when_it_is_acknowledged(outbox: Outbox, spool: Spool) -> None:
    add(spool, 3)
    outbox.begin()
    outbox.drain()
    assert left(spool) == [1, 2, 3]
    outbox.acknowledged(102)
    assert left(spool) == [1, 3]


def test_only_a_few_are_under_way_at_once(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 3 * IN_FLIGHT)
    outbox.begin()
    for _ in range(3):
        outbox.drain()
    assert len(wire.sent) == IN_FLIGHT
    outbox.acknowledged(101)
    outbox.acknowledged(102)
    outbox.drain()
    assert len(wire.sent) == IN_FLIGHT + 2


def test_each_record_is_sent_once_per_connection_and_in_order(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 2)
    outbox.begin()
    outbox.drain()
    outbox.drain()
    add(spool, 1)
    outbox.drain()
    assert len(wire.sent) == 3


def test_what_was_under_way_when_the_connection_broke_is_sent_again(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 2)
    outbox.begin()
    outbox.drain()
    outbox.end()
    outbox.drain()
    assert len(wire.sent) == 2
    outbox.begin()
    outbox.drain()
    assert len(wire.sent) == 4
    outbox.acknowledged(101)
    assert left(spool) == [1, 2], "an acknowledgement of the old connection means nothing"


def test_a_connection_that_breaks_in_between_loses_nothing(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 2)
    outbox.begin()
    wire.up = False
    outbox.drain()
    outbox.publish("a", b"", True, "plan/1")
    wire.up = True
    outbox.begin()
    outbox.drain()
    assert wire.sent == [("e", False)] * 2


def test_without_a_broker_all_of_it_does_nothing(spool: Spool) -> None:
    outbox = Outbox(None, spool)
    add(spool, 1)
    outbox.publish("a", b"", True, "plan/1")
    outbox.begin()
    outbox.drain()
    outbox.end()
    assert left(spool) == [1]
