from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.daemon.broker.outbox import REFILL, WINDOW, WINDOW_BYTES, Outbox
from reconvene_agent.daemon.storage.database import DatabaseFullError
from reconvene_agent.daemon.storage.spool import Spool
from support.spools import event, numbers, open_spool


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
    made = open_spool(tmp_path / "spool.db")
    yield made
    made.close()


@pytest.fixture
def outbox(wire: Wire, spool: Spool) -> Outbox:
    return Outbox(wire, spool)  # type: ignore[arg-type]


def add(spool: Spool, count: int, **document: str) -> None:
    spool.append([event(**document)] * count)


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
    assert numbers(spool) == [1, 2, 3]
    outbox.acknowledged(102)
    outbox.drain()
    assert numbers(spool) == [1, 3]


def test_a_window_is_under_way_at_once_and_refilled_by_halves(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 3 * WINDOW)
    outbox.begin()
    for _ in range(3):
        outbox.drain()
    assert len(wire.sent) == WINDOW
    for handle in range(101, 101 + REFILL - 1):
        outbox.acknowledged(handle)
        outbox.drain()
    assert len(wire.sent) == WINDOW
    assert len(numbers(spool)) == 3 * WINDOW
    outbox.acknowledged(101 + REFILL - 1)
    outbox.drain()
    assert len(wire.sent) == WINDOW + REFILL
    assert len(numbers(spool)) == 3 * WINDOW - REFILL, "removed in one go"


def test_large_records_fill_the_window_by_their_bytes(outbox: Outbox, wire: Wire, spool: Spool) -> None:
    add(spool, 20, filler="x" * (WINDOW_BYTES // 4 - 100))
    outbox.begin()
    outbox.drain()
    outbox.drain()
    assert len(wire.sent) == 4
    outbox.acknowledged(101)
    outbox.drain()
    assert len(wire.sent) == 4
    outbox.acknowledged(102)
    outbox.drain()
    assert len(wire.sent) == 6


def test_what_has_arrived_is_removed_when_the_connection_ends_or_the_agent_does(outbox: Outbox, spool: Spool) -> None:
    add(spool, WINDOW)
    outbox.begin()
    outbox.drain()
    outbox.acknowledged(101)
    outbox.end()
    assert numbers(spool)[0] == 2
    outbox.begin()
    outbox.drain()
    outbox.acknowledged(101 + WINDOW)
    outbox.close()
    assert numbers(spool)[0] == 3


def test_what_the_broker_refuses_waits_for_the_next_connection(
    outbox: Outbox, wire: Wire, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    add(spool, 3)
    outbox.begin()
    outbox.publish("a", b"", True, "plan/1")
    outbox.drain()
    assert outbox.acknowledged(101, "Not authorized") == "", "a command's end is not told by that"
    for handle, refusal in ((102, "Quota exceeded"), (103, ""), (104, "Quota exceeded")):
        assert outbox.acknowledged(handle, refusal) == ""
    outbox.drain()
    assert len(wire.sent) == 4
    assert numbers(spool) == [1, 3]
    outbox.begin()
    outbox.drain()
    assert len(wire.sent) == 6
    assert [line.getMessage() for line in caplog.records] == [
        "the broker refuses what is published: Not authorized; records wait for the next connection"
    ]


def test_what_cannot_be_removed_is_removed_later(outbox: Outbox, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DatabaseFullError("database or disk is full")

    add(spool, 3)
    outbox.begin()
    outbox.drain()
    with monkeypatch.context() as patched:
        patched.setattr(spool, "remove", refuse)
        outbox.acknowledged(101)
        outbox.drain()
    outbox.acknowledged(103)
    assert numbers(spool) == [1, 2, 3]
    outbox.drain()
    assert numbers(spool) == [2]


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
    outbox.drain()
    assert numbers(spool) == [1, 2], "an acknowledgement of the old connection means nothing"


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
    assert numbers(spool) == [1]
