"""The real agent on releases that break, and on a fleet that goes back and forth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.core.shelf import Shelf
from support.brokers import Mosquitto, wait_retained
from support.daemons import TOPICS, Daemon, Fleet
from support.shelves import publish, refuse, serving, tear
from support.waiting import until

ALARM = TOPICS.alarm("release_broken")


@pytest.fixture
def board(tmp_path: Path, broker: Mosquitto) -> Iterator[Daemon]:
    """Return an agent that is not started yet."""
    made = Daemon(tmp_path, broker.url)
    yield made
    made.__exit__()


def test_a_truncated_model_makes_room_for_the_one_before_with_an_alarm(board: Daemon, fleet: Fleet, broker: Mosquitto) -> None:
    models = board.state / "models"
    one, two = publish(models, 1), publish(models, 2)
    tear(models, two)
    board.start()
    alarm = fleet.wait(lambda message: message.topic == ALARM and message.payload != b"").json
    assert alarm["severity"] == "major"
    assert alarm["text"].startswith(f"release {two} is broken ({models / two}/model.onnx has 4 bytes, not the 7 ")
    assert serving(models) == one
    assert fleet.wait(lambda message: message.topic == TOPICS.twin("model") and message.payload != b"").json["version"] == one
    event = fleet.wait_topic(TOPICS.event("rolled_back")).json
    assert (event["before"], event["after"]) == (two, one)
    status = board.status()
    assert status["release"]["version"] == one
    assert status["problems"] == [alarm["text"]]
    board.kill()
    board.start()
    until(lambda: board.status()["problems"] == [alarm["text"]])
    assert wait_retained(broker.port, ALARM).json["text"] == alarm["text"]


def test_where_no_model_is_whole_the_agent_lives_and_says_so(board: Daemon, fleet: Fleet) -> None:
    models = board.state / "models"
    tear(models, publish(models, 1))
    board.start()
    alarm = fleet.wait(lambda message: message.topic == ALARM and message.payload != b"").json
    assert alarm["severity"] == "critical"
    assert board.status()["release"] is None
    fleet.ping(1)


def test_back_and_forth_over_the_wire(board: Daemon, fleet: Fleet) -> None:
    models = board.state / "models"
    made = [publish(models, number) for number in (1, 2, 3)]
    refused = refuse(models, 4)
    board.start()
    fleet.wait_birth()
    for number, (before, after) in enumerate(((2, 1), (1, 0))):
        fleet.order(f"rollback/{number}")
        end = fleet.wait_end(f"rollback/{number}")
        assert end["result"] == {"before": made[before], "after": made[after]}
        fleet.wait(lambda m, v=made[after]: m.topic == TOPICS.twin("model") and m.payload != b"" and m.json["version"] == v)
    fleet.order("rollback/9")
    end = fleet.wait_end("rollback/9")
    assert (end["error"]["code"], end["status"]) == ("SCHEMA", "failed")
    fleet.order("promote/1", {"version": refused})
    assert fleet.wait_end("promote/1")["result"] == {"before": made[0], "after": refused}
    assert serving(models) == refused
    tear(models, made[2])
    fleet.order("promote/2", {"version": made[2]})
    assert fleet.wait_end("promote/2")["error"]["code"] == "VERIFY_FAILED"
    assert [event.json["after"] for event in fleet.on(TOPICS.event("rolled_back"))] == [made[1], made[0]]
    assert fleet.wait_topic(TOPICS.event("model_promoted")).json["after"] == refused


def test_an_agent_that_was_killed_while_it_went_back_has_gone_back_once(board: Daemon, fleet: Fleet) -> None:
    models = board.state / "models"
    made = [publish(models, number) for number in (1, 2, 3)]
    board.start()
    fleet.wait_birth()
    fleet.order("rollback/1")
    until(lambda: serving(models) == made[1])
    board.kill()
    board.start()
    assert fleet.wait_end("rollback/1")["result"] == {"before": made[2], "after": made[1]}
    assert Shelf(models).served == made[:2]
