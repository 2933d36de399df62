"""The agent as a service of the main device on a thin-edge bus, as thin-edge's own parts see it: registry, mapper, watchdog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import Topics
from support.brokers import Message, Mosquitto
from support.daemons import Daemon, Fleet
from support.workers import WORK, honest

TE = Topics("te", "main")
FINAL = ("successful", "failed")


@pytest.fixture
def service(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> Iterator[Daemon]:
    """Return a running daemon that is a service of the main device; a command had been waiting for it."""
    go.touch()
    fleet.send(TE.command("ping", "waiting"), {"status": "init"})
    python = honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")
    with Daemon(tmp_path, broker.url, python, agent={"device_id": "main"}) as running:
        yield running


def born(fleet: Fleet) -> Message:
    return fleet.wait(lambda message: message.topic == TE.health and b'"up"' in message.payload)


def test_it_registers_before_all_else_and_tells_what_it_can_do(service: Daemon, fleet: Fleet) -> None:
    health = born(fleet).json
    for op in OPERATIONS:
        fleet.wait_topic(TE.capability(op))
    answered = TE.command("ping", "waiting")
    fleet.wait(lambda message: message.topic == answered and b'"successful"' in message.payload)
    ours = [message for message in fleet.seen[1:] if message.topic.startswith("te/")]
    assert ours[0].topic == TE.service == "te/device/main/service/reconvene-agent"
    assert ours[0].json == {"@type": "service", "name": "reconvene-agent", "type": "ml-agent"}
    # A mapper takes a topic apart by its levels: root, four of the entity, then the channel.
    channels = {message.topic.split("/")[5] for message in ours[1:]}
    assert channels <= {"status", "twin", "m", "e", "a", "cmd"}
    assert all(message.topic.count("/") <= 7 for message in ours)
    assert (health["status"], health["pid"]) == ("up", service.pid)
    assert datetime.fromisoformat(health["time"].replace("Z", "+00:00")).tzinfo is not None
    for op in OPERATIONS:
        assert isinstance(fleet.on(TE.capability(op))[0].json, dict)


def test_a_command_goes_through_the_states_of_a_workflow(service: Daemon, fleet: Fleet) -> None:
    born(fleet)
    topic = TE.command("specialize", "c8y-mapper-1")
    fleet.send(topic, {"status": "init", "args": {}, "c8y-mapper": {"on_fragment": "x"}})
    fleet.wait(lambda message: message.topic == topic and b'"successful"' in message.payload, 30)
    states = [message.json for message in fleet.on(topic)]
    assert list(dict.fromkeys(state["status"] for state in states)) == ["init", "scheduled", "executing", "successful"]
    assert all(state["c8y-mapper"] == {"on_fragment": "x"} for state in states), "others keep their notes in it"
    refused = TE.command("specialize", "c8y-mapper-2")
    fleet.send(refused, {"status": "init", "args": {"sparsity": 7}})
    failed = fleet.wait(lambda message: message.topic == refused and b'"failed"' in message.payload).json
    assert isinstance(failed["reason"], str)


def test_a_health_check_is_answered_with_the_health_and_is_no_command(service: Daemon, fleet: Fleet) -> None:
    born(fleet)
    seen = len(fleet.seen)
    check = f"{TE.service}/cmd/health/check"
    fleet.send(check, b"{}", retain=False)
    answer = fleet.wait_topic(TE.health, after=seen).json
    assert (answer["status"], answer["pid"]) == ("up", service.pid)
    fleet.send(TE.command("ping", "1"), {"status": "init"})
    fleet.wait(lambda message: message.topic == TE.command("ping", "1") and b'"successful"' in message.payload)
    assert [message.payload for message in fleet.on(check)] == [b"{}"]
