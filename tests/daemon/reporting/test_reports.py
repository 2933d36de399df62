from __future__ import annotations

from typing import Any

import pytest

from reconvene_agent.core.job import Command
from reconvene_agent.core.protocol import Happening
from reconvene_agent.daemon.effects import Record
from reconvene_agent.daemon.reporting import reports
from support.agents import TOPICS, WALL

COMMAND = Command("specialize", "1", {}, "", WALL, WALL)
ABOUT = {"time": "2026-01-01T00:00:00.000Z", "command": "specialize/1"}


def records(name: str, data: dict[str, Any]) -> list[Record]:
    return reports.records(TOPICS, COMMAND, Happening(name, data), WALL)


@pytest.mark.parametrize(
    ("name", "told"),
    [("plan", "plan_chosen"), ("prune", "model_pruned"), ("warning", "warning"), ("release", "model_promoted")],
)
def test_what_the_fleet_hears_of(name: str, told: str) -> None:
    assert records(name, {"x": 1}) == [Record("event", TOPICS.event(told), {**ABOUT, "x": 1})]


def test_what_it_does_not() -> None:
    assert records("chatter", {"x": 1}) == []


def test_an_epoch_is_a_measurement_too() -> None:
    event, measured = records("epoch", {"epoch": 2, "loss": 0.5, "accuracy": 0.9, "secret": 1})
    assert event.document["secret"] == 1
    assert measured == Record(
        "measurement", TOPICS.measurement("training"), {"time": ABOUT["time"], "epoch": 2, "loss": 0.5, "accuracy": 0.9}
    )


def test_a_release_tells_its_latency() -> None:
    _, measured = records("release", {"latency_ms": {"p50": 1.0, "p95": 2.0}, "bytes": 77})
    assert measured.topic == TOPICS.measurement("inference")
    assert measured.document == {"time": ABOUT["time"], "latency_ms_p50": 1.0, "latency_ms_p95": 2.0, "bytes": 77}


@pytest.mark.parametrize("latency", [None, 5, [], "fast"])
def test_a_latency_that_makes_no_sense_is_left_out(latency: object) -> None:
    assert len(records("release", {"latency_ms": latency})) == 1


def test_a_figure_that_is_not_known_is_left_out_of_a_measurement() -> None:
    found = reports.measurement(TOPICS, "training", {"loss": 0.0, "accuracy": None}, WALL)
    assert found.document == {"time": ABOUT["time"], "loss": 0.0}
