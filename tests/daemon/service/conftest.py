"""The daemon as a real process, at a real broker, with workers that are honest but have no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.brokers import Mosquitto, forget_session
from support.daemons import Daemon, Fleet
from support.workers import WORK, honest


@pytest.fixture
def fleet(broker: Mosquitto) -> Iterator[Fleet]:
    """Return a controller on a broker that holds nothing of earlier tests."""
    forget_session(broker.port, "reconvene-agent-board-1")
    with Fleet(broker.port) as connected:
        connected.send("marker", b"x", retain=False)
        connected.wait_topic("marker")
        for message in list(connected.seen):
            if message.retain:
                connected.send(message.topic, b"")
        connected.send("cleared", b"x", retain=False)
        connected.wait_topic("cleared")
        connected.seen.clear()
        yield connected


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """Return the file that lets the honest worker go on from training."""
    return tmp_path / "go"


@pytest.fixture
def daemon(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> Iterator[Daemon]:
    """Return a running daemon with the honest worker; the fleet listens before it is born, so that it hears everything."""
    with Daemon(tmp_path, broker.url, honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")) as running:
        yield running
