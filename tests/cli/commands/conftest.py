"""A fleet for the tests of ``fleet``: two real agents, and what runs its actions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.core.topics import Topics
from support.brokers import Bus, Mosquitto
from support.commandline import SOON, Cli, FleetCli
from support.daemons import Daemon


@pytest.fixture(scope="module")
def agents(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Return two real agents, board-1 and board-2, that have told the fleet of themselves."""
    made = []
    for name in ("board-1", "board-2"):
        folder = tmp_path_factory.mktemp(name)
        made.append(Daemon(folder, broker.url, agent={"device_id": name}, telemetry={"interval_s": 1.0}))
    with Bus(broker.port) as bus, made[0], made[1]:
        for name in ("board-1", "board-2"):
            bus.wait(lambda message, name=name: message.topic == Topics("te", name).health and b'"up"' in message.payload)
        yield made


@pytest.fixture
def fleet(cli: Cli, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FleetCli:
    """Return what runs an action of ``fleet`` at the broker, in this process."""
    monkeypatch.delenv("RECONVENE_FLEET_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda action, *words: cli("fleet", action, *words, "--broker", broker.url, *SOON)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a broker for one test alone."""
    with Mosquitto(tmp_path / "mosquitto") as started:
        yield started
