"""The real daemon under a flood of messages that nobody should send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psutil import Process

from reconvene_agent.core.job import payload
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.commands.book import CROWD, MAX_KEPT, MAX_KEPT_BYTES
from reconvene_agent.daemon.storage.journal import Journal
from support.brokers import Mosquitto
from support.daemons import TOPICS, Daemon, Fleet
from support.fuzzing import Fuzzer, flood
from support.workers import WORK, honest

MESSAGES = 20_000
# What is kept of commands, a megabyte in all, takes twenty times as much where it consists of empty lists, and Python does not
# give back all of what passing messages took. From here on more garbage takes no more.
GROWTH_MB = 64.0


def memory_mb(daemon: Daemon) -> float:
    return float(Process(daemon.pid).memory_info().rss) / 2**20


@pytest.fixture
def controller(broker: Mosquitto) -> Iterator[Fleet]:
    """Return a controller that listens to the answers of pings alone."""
    with Fleet(broker.port, matching=TOPICS.command("ping", "+")) as connected:
        yield connected


@pytest.fixture
def flooded(tmp_path: Path, broker: Mosquitto, go: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, broker.url, honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_that_is_sent_breaks_it(flooded: Daemon, controller: Fleet, broker: Mosquitto) -> None:
    daemon, fuzzer = flooded, Fuzzer(seed=7)
    assert controller.ping("before")["version"]
    before = memory_mb(daemon)
    for turn in range(2):
        flood(broker.port, fuzzer.messages(MESSAGES // 2))
        controller.order(f"ping/after-{turn}")
        assert controller.wait_end(f"ping/after-{turn}", 180)["status"] == "successful"
        assert memory_mb(daemon) - before < GROWTH_MB
    assert "Traceback" not in daemon.log
    assert daemon.stop() == 0
    journal = Journal(daemon.state / "journal.db")
    kept = [command for command in journal.load() if command.status.terminal]
    journal.close()
    assert len(kept) <= CROWD * MAX_KEPT
    assert sum(len(payload(command)) for command in kept) <= CROWD * MAX_KEPT_BYTES + MAX_PAYLOAD + 4096
    assert sum(file.stat().st_size for file in daemon.state.glob("journal.db*")) < 8 * MAX_KEPT_BYTES
    daemon.start()
    controller.order("ping/again")
    assert controller.wait_end("ping/again", 180)["status"] == "successful", "with all that the broker has retained of it, too"
