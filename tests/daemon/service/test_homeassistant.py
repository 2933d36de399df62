"""Home Assistant at a real broker, beside the real daemon: found, pressed, born again, switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.daemon.storage import discovered
from support import homeassistant as theirs
from support.brokers import Message, Mosquitto, wait_cleared, wait_retained
from support.daemons import TOPICS, Daemon, Fleet
from support.waiting import until
from support.workers import WORK, honest

STATE = f"{TOPICS.service}/ha/state"

# The daemon, but it does not let Home Assistant wait for long.
_HASTY = """
import sys
from reconvene_agent.daemon.service import lean
lean.postpone_unused()
from reconvene_agent.daemon import __main__ as entry
from reconvene_agent.daemon.reporting import homeassistant
homeassistant.SPREAD_S = 0.5
sys.exit(entry.main(sys.argv[1:]))
"""

Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> Iterator[Start]:
    """Return what starts the daemon, in the place of the one before, with or without discovery."""
    running: list[Daemon] = []

    def begin(discovery: bool = True) -> Daemon:
        for earlier in running:
            assert earlier.stop() == 0
        python = honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")
        daemon = Daemon(tmp_path, broker.url, python, homeassistant={"discovery": discovery})
        daemon.program = ("-c", _HASTY)
        running[:] = [daemon.start()]
        return daemon

    yield begin
    for daemon in running:
        daemon.__exit__()


def is_discovery(message: Message) -> bool:
    return message.topic.startswith("homeassistant/device/") and message.payload != b""


def found(fleet: Fleet, after: int = 0) -> tuple[str, dict[str, Any]]:
    """Return topic and document of the discovery."""
    message = fleet.wait(is_discovery, after=after)
    return message.topic, message.json


def test_a_press_leads_to_a_commands_end(start: Start, fleet: Fleet, go: Path) -> None:
    go.touch()
    start()
    topic, document = found(fleet)
    theirs.check(topic, document)
    button = document["components"]["specialize_button"]
    press = theirs.pressed(button)
    fleet.send(button["command_topic"], press, retain=button["retain"])

    def is_end(message: Message) -> bool:
        return "/cmd/specialize/ha-" in message.topic and b'"successful"' in message.payload

    end = fleet.wait(is_end, 30)
    assert (end.json["requester"], end.json["attempt"]) == ("homeassistant", 1)
    sensors = document["components"]
    told = [message.payload for message in fleet.on(STATE)]
    steps = list(dict.fromkeys(theirs.shown(sensors["step"], payload) for payload in told))
    assert steps[:2] == ["none", "probe"]
    assert "train" in steps
    until(lambda: theirs.shown(sensors["state"], fleet.on(STATE)[-1].payload) == "idle")
    system = fleet.wait_topic(TOPICS.measurement("system"))
    assert float(theirs.shown(sensors["memory"], system.payload) or 0) > 0
    # The same press once more, as a broker may deliver it, is the same command.
    fleet.send(button["command_topic"], press, retain=False)
    fleet.ping(1)
    assert len({message.topic for message in fleet.seen if "/cmd/specialize/ha-" in message.topic}) == 1


def test_the_device_is_announced_last_and_again_on_home_assistants_birth(start: Start, fleet: Fleet) -> None:
    start()
    topic, document = found(fleet)
    topics = fleet.topics()
    first = topics.index(topic)
    assert topics.index(TOPICS.health) < first
    assert topics.index(TOPICS.service) < first
    seen = len(fleet.seen)
    fleet.send("homeassistant/status", b"online", retain=False)
    assert found(fleet, seen) == (topic, document)


def test_when_it_is_switched_off_nothing_of_it_is_left(start: Start, fleet: Fleet, broker: Mosquitto) -> None:
    daemon = start()
    topic, _ = found(fleet)
    fleet.wait_topic(STATE)
    assert discovered.kept(daemon.state / "homeassistant.json") == (topic, STATE)
    wait_retained(broker.port, topic)
    seen = len(fleet.seen)
    daemon = start(discovery=False)
    for gone in (topic, STATE):
        fleet.wait(lambda message, gone=gone: (message.topic, message.payload) == (gone, b""), after=seen)
        wait_cleared(broker.port, gone)
    until(lambda: not (daemon.state / "homeassistant.json").exists())
    seen = len(fleet.seen)
    fleet.send(f"{TOPICS.service}/ha/rollback", msgspec.json.encode({"time": 0}), retain=False)
    fleet.ping(2)
    assert not [name for name in fleet.topics(seen) if "/cmd/rollback/" in name]
