"""A real daemon on a board that gets hot and cold: files that stand for its sensors, a real broker, a real worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.brokers import Mosquitto, wait_cleared, wait_retained
from support.commandline import command
from support.daemons import TOPICS, Daemon, Fleet, StrainedBoard
from support.waiting import until
from support.workers import WORK, honest

PROFILE = "generic-x86_64"
HOT, WARM, COOL = 90.0, 80.0, 60.0


@pytest.fixture
def board(tmp_path: Path) -> StrainedBoard:
    return StrainedBoard(tmp_path / "board")


@pytest.fixture
def daemon(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path, board: StrainedBoard) -> Iterator[Daemon]:
    """Return a running daemon on that board."""
    worker = honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")
    made = Daemon(tmp_path, broker.url, worker, agent={"profile": PROFILE})
    made.program = board.program
    with made as running:
        yield running


def reason(daemon: Daemon) -> str:
    """Return why the job is paused, once it is and its worker is gone."""
    until(lambda: daemon.status()["state"] == "paused" and not daemon.workers())
    return str(daemon.status()["job"]["note"])


def test_a_job_pauses_while_the_board_is_hot_and_goes_on_by_itself(
    daemon: Daemon, fleet: Fleet, broker: Mosquitto, board: StrainedBoard, go: Path
) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    board.fares(HOT)
    assert reason(daemon) == "paused: the board is too hot: 90 °C, over 85; goes on below 75"
    paused = fleet.wait_topic(TOPICS.event("paused")).json
    assert (paused["command"], paused["cause"]) == ("specialize/1", "heat")
    assert wait_retained(broker.port, TOPICS.alarm("over_temperature")).json["severity"] == "major"
    board.fares(WARM)
    assert fleet.ping(1)["state"] == "paused"
    board.fares(COOL)
    fleet.wait_topic(TOPICS.event("resumed"))
    go.touch()
    last = fleet.wait_end("specialize/1")
    assert (last["status"], last["attempt"]) == ("successful", 1)
    assert "reason" not in last
    wait_cleared(broker.port, TOPICS.alarm("over_temperature"))


def test_a_weak_supply_pauses_and_a_paused_job_can_be_canceled(daemon: Daemon, fleet: Fleet, board: StrainedBoard) -> None:
    fleet.wait_birth()
    board.fares(COOL, under_voltage=True)
    fleet.order("specialize/1")
    assert "under-voltage" in reason(daemon)
    fleet.order("cancel/1")
    assert fleet.wait_end("specialize/1")["error"]["code"] == "CANCELED"


def test_pause_on_the_board_outlives_a_crash_until_resume(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    said = command("pause", "--config", daemon.config)
    assert (said.code, said.out) == (0, "paused on command (command line): 'reconvene-agent resume' lets it go on\n")
    assert reason(daemon) == "paused: on command (command line)"
    daemon.kill()
    daemon.start()
    assert reason(daemon) == "paused: on command (command line)"
    shown = command("status", "--config", daemon.config)
    assert "specialize/1: train" in shown.out
    assert "(paused: on command (command line))" in shown.out
    go.touch()
    assert command("resume", "--config", daemon.config, "--json").document == {"paused": None}
    last = fleet.wait_end("specialize/1")
    assert (last["status"], last["attempt"]) == ("successful", 1)
    assert command("resume", "--config", daemon.config).out == "no longer paused\n"


def test_a_worker_that_somebody_stops_goes_on(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    (worker,) = daemon.workers()
    worker.terminate()
    until(lambda: daemon.workers() not in ([], [worker]))
    go.touch()
    last = fleet.wait_end("specialize/1")
    assert (last["status"], last["attempt"]) == ("successful", 2)


def test_nobody_there_to_be_paused(tmp_path: Path) -> None:
    config = Daemon(tmp_path).config
    for word in ("pause", "resume"):
        said = command(word, "--config", config)
        assert said.code == 3
        assert said.complaint.startswith("the agent is not running")
