from __future__ import annotations

import threading

from reconvene_agent.daemon.events import Received, StatusAsked, Tick
from reconvene_agent.daemon.service.inbox import CAPACITY, CAPACITY_BYTES, Inbox


def test_events_come_out_in_order() -> None:
    inbox = Inbox()
    inbox.post(StatusAsked(1))
    inbox.post_now(StatusAsked(2))
    inbox.post(StatusAsked(3))
    assert [inbox.get(0) for _ in range(4)] == [StatusAsked(1), StatusAsked(2), StatusAsked(3), None]


def test_a_time_in_the_past_does_not_wait() -> None:
    assert Inbox().get(-5.0) is None


def test_a_full_inbox_makes_adapters_wait_but_not_the_owner() -> None:
    inbox = Inbox()
    for _ in range(CAPACITY):
        inbox.post(Tick())
    through = threading.Event()

    def adapter() -> None:
        inbox.post(StatusAsked(7))
        through.set()

    thread = threading.Thread(target=adapter)
    thread.start()
    assert not through.wait(0.1)
    inbox.post_now(StatusAsked(8))
    assert inbox.get(0) == Tick()
    assert through.wait(5)
    thread.join()
    events = [inbox.get(0) for _ in range(CAPACITY + 1)]
    assert events[-2:] == [StatusAsked(8), StatusAsked(7)]


def test_bytes_fill_it_too_but_one_large_message_always_passes() -> None:
    inbox = Inbox()
    large = Received("x", b"x" * (CAPACITY_BYTES + 1), CAPACITY_BYTES + 1)
    inbox.post(large)
    through = threading.Event()

    def adapter() -> None:
        inbox.post(Received("y", b"y", 1))
        through.set()

    thread = threading.Thread(target=adapter)
    thread.start()
    assert not through.wait(0.1)
    assert inbox.get(0) == large
    assert through.wait(5)
    thread.join()
