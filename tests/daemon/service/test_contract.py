"""What passes over a real broker while a real daemon works: each message fits its channel, and no channel is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from reconvene_agent.cli.contract import asyncapi, catalogue
from reconvene_agent.cli.contract.examples import examples
from reconvene_agent.core import census
from support.brokers import Message, Mosquitto
from support.contract import Contract
from support.daemons import TOPICS, Daemon, Fleet, StrainedBoard, state_of
from support.shelves import publish, tear
from support.waiting import until
from support.workers import honest

UNSEEN_CHANNELS = {
    "event_replanned": "the kernel must have killed a worker: test_out_of_memory.py and the bench of commands",
}
UNSEEN_MESSAGES = {
    "Replanned": UNSEEN_CHANNELS["event_replanned"],
}

# The words of the real worker, as the examples have them, and its results.
WORKER = """
from reconvene_agent.cli.contract.examples import examples
def told(name):
    return {key: value for key, value in examples()[name][0].items() if key not in ("time", "boot_id", "seq", "command")}
if type(request).__name__ == "PlanRequest":
    channel.event("warning", told("Warned"))
    return next(each["result"] for each in examples()["PlanState"] if each["status"] == "successful")
for name, kind in (("plan", "PlanChosen"), ("prune", "ModelPruned"), ("epoch", "Epoch")):
    channel.event(name, told(kind))
channel.progress(Step.TRAIN, 0.0)
wait_for(GO, channel)
channel.event("refused", told("ReleaseRefused"))
channel.event("release", told("ReleaseMade"))
return next(each["result"] for each in examples()["SpecializeState"] if each["status"] == "successful")
"""

DOCUMENT = msgspec.json.decode(msgspec.json.encode(asyncapi.document()))
CONTRACT = Contract(TOPICS)


@pytest.fixture
def board(tmp_path: Path) -> StrainedBoard:
    return StrainedBoard(tmp_path / "board")


@pytest.fixture
def daemon(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path, board: StrainedBoard) -> Iterator[Daemon]:
    """Return a daemon that is not started yet, with two releases and more data than they were trained on."""
    settings = {"bundle": "ours", "data": "ours", "new_data_share": 0.2}
    worker = honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORKER}")
    agent = {"profile": "generic-x86_64"}
    made = Daemon(tmp_path, broker.url, worker, agent=agent, specialize=settings, telemetry={"interval_s": 1.0})
    made.program = board.program
    data = made.state / "data/ours"
    for number in (1, 2):
        publish(made.state / "models", number, data=census.take(data))
    (data / "1.png").write_bytes(b"x" * 100)
    yield made
    made.__exit__()


def let_happen(daemon: Daemon, fleet: Fleet, board: StrainedBoard, go: Path) -> None:
    """Let the agent do all that it can do, and suffer most of what it can suffer."""
    daemon.start()
    own = fleet.wait_topic(TOPICS.event("data_changed")).json["command"]
    fleet.wait_topic(TOPICS.event("epoch"))
    board.fares(90.0, throttled=True)
    fleet.wait_topic(TOPICS.event("paused"))
    fleet.wait_topic(TOPICS.event("throttled"))
    board.fares(40.0)
    fleet.wait_topic(TOPICS.event("resumed"))
    go.touch()
    assert fleet.wait_end(own)["status"] == "successful"
    assert fleet.wait_order("plan/1")["status"] == "successful"
    assert fleet.wait_order("plan/2", {"bundle": "missing"})["error"]["code"] == "BAD_BUNDLE"
    assert fleet.wait_order("specialize/1")["status"] == "successful"
    assert fleet.wait_order("specialize/2", {"sparsity": "much"})["error"]["code"] == "SCHEMA"
    assert fleet.wait_order("fly/1")["error"]["code"] == "UNSUPPORTED"
    newest = fleet.wait_order("rollback/1")["result"]["before"]
    assert fleet.wait_order("promote/1", {"version": newest})["result"]["after"] == newest
    for label in ("pause/1", "cancel/1", "resume/1", "ping/1"):
        assert fleet.wait_order(label, requester="me", **{"x-trace": [1]})["status"] == "successful"
    assert fleet.wait_order("log_upload/1")["result"]["parts"] > 0
    assert fleet.wait_order("config_update/1", {"set": {"drift.sustained_s": 500}})["status"] == "successful"
    assert fleet.wait_order("restart/1")["status"] == "successful"
    tear(daemon.state / "models", newest)
    fleet.wait(lambda message: message.topic == TOPICS.event("rolled_back") and "reason" in message.json)
    fleet.wait(lambda message: message.topic == TOPICS.alarm("release_broken") and message.payload != b"")
    assert daemon.stop() == 0
    until(lambda: any(b'"down"' in message.payload for message in fleet.on(TOPICS.health)))


def schema_of(name: str) -> dict[str, Any]:
    return {**DOCUMENT["components"]["messages"][name]["payload"], "components": DOCUMENT["components"]}


def fitting(message: Message, names: list[str]) -> list[str]:
    """Return which of a channel's messages one is, by their schemas."""
    if not message.payload:
        return ["Cleared"]
    return [name for name in names if name != "Cleared" and jsonschema.Draft7Validator(schema_of(name)).is_valid(message.json)]


def test_all_that_passes_over_the_bus(daemon: Daemon, fleet: Fleet, board: StrainedBoard, go: Path) -> None:
    let_happen(daemon, fleet, board, go)
    channels, names = set(), set()
    for message in fleet.published():
        channel = CONTRACT.check(message.topic, message.payload)
        found = fitting(message, [each.name for each in channel.sent])
        assert len(found) == 1, f"{message.topic}: {message.payload!r} is {found or 'nothing'} by the schemas"
        channels.add(channel.name)
        names.add(found[0])
    for message in fleet.seen:
        if TOPICS.parse_command(message.topic) is not None and not state_of(message) and b"much" not in message.payload:
            (found,) = fitting(message, [each.name for each in CONTRACT.channel_of(message.topic).received])
            names.add(found)
    assert channels == set(DOCUMENT["channels"]) - set(UNSEEN_CHANNELS)
    assert names == set(catalogue.messages()) - set(UNSEEN_MESSAGES)
    assert set(examples()) >= names
