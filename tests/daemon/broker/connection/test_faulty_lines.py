"""The spool, drained over lines that fail in every way a line can."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon import events
from reconvene_agent.daemon.broker import backoff
from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.link import Link
from reconvene_agent.daemon.broker.outbox import WINDOW, Outbox
from reconvene_agent.daemon.reporting import reports
from reconvene_agent.daemon.service.inbox import Inbox
from reconvene_agent.daemon.service.loop import _Adapter
from reconvene_agent.daemon.storage.spool import Spool
from support.brokers import HOST, Mosquitto
from support.harvest import Harvest
from support.proxy import Proxy
from support.spools import open_spool

SOME = 1_000


class Owner:
    """What the daemon's loop does for the spool: takes in what the connection tells, one after the other, and drains."""

    def __init__(self, port: int, spool: Spool, name: str, protocol: str) -> None:
        self.spool = spool
        self.topics = Topics("te", name)
        self._inbox = Inbox()
        link = Link(HOST, port, name, protocol, keepalive_s=1)
        self.connection = Connection(link, None, (self.topics.commands,), _Adapter(self._inbox))
        self.outbox = Outbox(self.connection, spool)
        self.connections = self.written = 0
        self.connected = False

    def write(self, count: int) -> None:
        """Write records of three streams, ten at a time."""
        for begin in range(self.written, self.written + count, 10):
            batch = [
                reports.measurement(self.topics, ("system", "training")[n % 2], {"n": n}, 0.0) for n in range(begin, begin + 9)
            ]
            self.spool.append([*batch, reports.event(self.topics, "epoch", 0.0, n=begin + 9)])
        self.written += count

    def turn_until(self, done: Callable[[], bool], seconds: float = 60.0) -> None:
        """Handle events until ``done``."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline
            event = self._inbox.get(0.02)
            if isinstance(event, events.Delivered):
                self.outbox.acknowledged(event.handle, event.refusal)
            elif isinstance(event, events.Connected):
                self.connected = True
                self.connections += 1
                self.outbox.begin()
            elif isinstance(event, events.Disconnected):
                self.connected = False
                self.outbox.end()
            self.outbox.drain()


Line = tuple[Owner, Proxy, Harvest]


@pytest.fixture
def line(tmp_path: Path, broker: Mosquitto, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Return an owner whose connection leads through a proxy, the proxy, and who gathers what arrives."""
    monkeypatch.setattr(backoff, "delay", lambda *_: 0.05)
    name = tmp_path.name
    spool = open_spool(tmp_path / "spool.db")
    with Proxy(broker.port) as proxy, Harvest(broker.port, f"te/device/{name}/#") as harvest:
        owner = Owner(proxy.port, spool, name, getattr(request, "param", "5"))
        try:
            yield owner, proxy, harvest
        finally:
            owner.connection.close(2)
            spool.close()


def everything_arrived(owner: Owner, harvest: Harvest) -> None:
    """Turn until the spool is empty; fail unless all has arrived, in order, and no more of it twice than was under way."""
    owner.turn_until(lambda: not owner.spool.after(0, 1, 1))
    harvest.wait(owner.written)
    harvest.check()
    assert [record.json["n"] for record in harvest.firsts()] == list(range(owner.written))
    assert len(harvest.records) - owner.written <= WINDOW * (owner.connections - 1)
    assert owner.spool.dropped == 0


@pytest.mark.parametrize("line", ["5", "3.1.1"], indirect=True)
def test_ten_thousand_written_during_an_outage_arrive_over_a_line_that_is_cut_again_and_again(line: Line) -> None:
    owner, proxy, harvest = line
    owner.connection.start()
    owner.turn_until(lambda: owner.connected)
    proxy.black_hole()
    owner.write(10_000)
    owner.turn_until(lambda: not owner.connected)
    proxy.heal()
    for cut in range(1, 6):
        owner.turn_until(lambda cut=cut: len(harvest.records) >= cut * SOME)  # type: ignore[misc]
        proxy.cut()
        owner.turn_until(lambda cut=cut: owner.connections > cut)  # type: ignore[misc]
    everything_arrived(owner, harvest)


@pytest.mark.parametrize("fault", [Proxy.black_hole, Proxy.half_open])
def test_a_line_that_goes_dead_without_a_word_is_noticed(line: Line, fault: Callable[[Proxy], None]) -> None:
    owner, proxy, harvest = line
    owner.write(SOME)
    owner.connection.start()
    owner.turn_until(lambda: len(harvest.records) >= SOME // 4)
    fault(proxy)
    owner.write(SOME)
    owner.turn_until(lambda: not owner.connected)
    proxy.heal()
    everything_arrived(owner, harvest)
    assert owner.connections >= 2


@pytest.mark.parametrize("fault", [lambda proxy: proxy.delay(0.02), lambda proxy: proxy.slow_down(200_000)])
def test_a_line_that_is_late_or_slow_is_only_that(line: Line, fault: Callable[[Proxy], None]) -> None:
    owner, proxy, harvest = line
    fault(proxy)
    owner.write(SOME // 2)
    owner.connection.start()
    everything_arrived(owner, harvest)
    assert owner.connections == 1


def test_a_line_that_fails_while_it_is_being_set_up(line: Line) -> None:
    owner, proxy, harvest = line
    proxy.black_hole()
    owner.write(SOME // 2)
    owner.connection.start()
    begun = time.monotonic()
    owner.turn_until(lambda: time.monotonic() - begun > 0.3)
    proxy.heal()
    everything_arrived(owner, harvest)
