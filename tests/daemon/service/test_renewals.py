"""``config_update`` and ``restart`` with a real daemon, which comes up again in the same process."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from reconvene_agent.core import overlay
from support.brokers import HOST, Mosquitto, free_port, pause, wait_retained
from support.daemons import TOPICS, Daemon, Fleet
from support.waiting import until


def health(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the healths told, in order."""
    return [message.json for message in fleet.seen if message.topic == TOPICS.health]


def wait_another_birth(fleet: Fleet, earlier: str) -> None:
    """Wait until a session other than the ``earlier`` one says that it is up."""
    fleet.wait(lambda message: message.topic == TOPICS.health and message.json["session"] != earlier)


def config_twin(port: int) -> dict[str, Any]:
    document: dict[str, Any] = wait_retained(port, TOPICS.twin("config")).json
    return document


# --- restart --------------------------------------------------------------------------------------------------------------------


def test_it_comes_up_again_once_in_the_same_process(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    (first,) = {said["session"] for said in health(fleet) if said["status"] == "up"}
    fleet.order("restart/1")
    last = fleet.wait_end("restart/1")
    assert last["status"] == "successful"
    wait_another_birth(fleet, first)
    assert last["result"]["pid"] == daemon.pid
    assert "executing" in [state["status"] for state in fleet.states("restart/1")]
    fleet.ping(1)
    assert daemon.process is not None
    assert daemon.process.poll() is None
    sessions = list(dict.fromkeys(said["session"] for said in health(fleet)))
    assert len(sessions) == 2
    assert sessions[0] == first
    assert daemon.log.count("connected to") == 2, "the retained command starts nothing again"
    assert daemon.stop() == 0


def test_a_running_job_goes_on_after_a_restart(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    fleet.order("restart/1")
    assert fleet.wait_end("restart/1")["status"] == "successful"
    go.touch()
    last = fleet.wait_end("specialize/1")
    assert (last["status"], last["attempt"]) == ("successful", 1)
    assert [child for child in psutil.Process(daemon.pid).children() if child.status() == psutil.STATUS_ZOMBIE] == []


def test_sigterm_wins_over_a_restart_and_the_command_still_ends(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    fleet.order("restart/1")
    fleet.wait_status("restart/1", "executing")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: daemon.process is None or daemon.process.poll() is not None or "goes on" in daemon.log)
    if daemon.process.poll() is None:  # the signal came when it was up again
        daemon.stop()
    daemon.start()
    assert fleet.wait_end("restart/1")["status"] == "successful"


# --- config_update --------------------------------------------------------------------------------------------------------------


def test_an_update_holds_over_restarts_and_can_be_taken_back(daemon: Daemon, fleet: Fleet, broker: Mosquitto) -> None:
    fleet.wait_birth()
    owners = daemon.config.read_bytes()
    fleet.order("config_update/1", {"set": {"budget.latency_ms": 20, "telemetry.interval_s": 5, "agent.log_level": "debug"}})
    last = fleet.wait_end("config_update/1")
    assert last["status"] == "successful"
    assert last["result"] == {"changed": ["agent.log_level", "budget.latency_ms", "telemetry.interval_s"]}
    fleet.wait(lambda message: message.topic == TOPICS.twin("config") and b'"latency_ms":20' in message.payload)
    assert config_twin(broker.port)["updated"] == ["agent.log_level", "budget.latency_ms", "telemetry.interval_s"]
    daemon.kill()
    daemon.start()
    assert daemon.status()["updated"] == ["agent.log_level", "budget.latency_ms", "telemetry.interval_s"]
    fleet.order("config_update/2", {"set": {"budget.latency_ms": None, "agent.log_level": None}})
    assert fleet.wait_end("config_update/2")["result"] == {"changed": ["agent.log_level", "budget.latency_ms"]}
    assert daemon.config.read_bytes() == owners
    assert daemon.status()["updated"] == ["telemetry.interval_s"]


def test_what_is_not_valid_as_a_whole_changes_nothing(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("config_update/1", {"set": {"budget.latency_ms": -1, "training.epochs": 3}})
    last = fleet.wait_end("config_update/1")
    assert last["error"]["code"] == "SCHEMA"
    assert "budget.latency_ms: Expected `float` > 0.0" in last["reason"]
    assert not (daemon.state / overlay.FILE).exists()
    assert daemon.log.count("connected to") == 1


def test_a_dead_broker_is_left_for_the_one_before(daemon: Daemon, fleet: Fleet, broker: Mosquitto) -> None:
    fleet.wait_birth()
    dead = f"mqtt://{HOST}:{free_port()}"
    fleet.order("config_update/1", {"set": {"broker.url": dead, "training.epochs": 3}, "trial_s": 1})
    last = fleet.wait_end("config_update/1")
    assert last["error"]["code"] == "VERIFY_FAILED"
    assert "rolled back: the broker was not reached within 1 s" in last["reason"]
    assert "Connection refused" in last["reason"]
    assert overlay.read(daemon.state).settings == {}
    assert fleet.ping(1)["state"] == "idle"
    assert f"no broker: {dead.removeprefix('mqtt://')}" in daemon.log


def test_sigkill_in_the_middle_of_a_trial_ends_well(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    dead = f"mqtt://{HOST}:{free_port()}"
    fleet.order("config_update/1", {"set": {"broker.url": dead}, "trial_s": 3})
    until(lambda: "no broker" in daemon.log)
    daemon.kill()
    trial = overlay.read(daemon.state).trial
    assert trial is not None
    assert trial.starts == 1
    daemon.start()
    assert fleet.wait_end("config_update/1")["error"]["code"] == "VERIFY_FAILED"
    assert fleet.ping(1)["state"] == "idle"


def test_a_board_moves_to_another_broker(tmp_path: Path, daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    with Mosquitto(tmp_path / "other") as other, Fleet(other.port) as there:
        fleet.order("config_update/1", {"set": {"broker.url": other.url}})
        assert there.wait_end("config_update/1")["result"] == {"changed": ["broker.url"]}
        go.touch()
        last = there.wait_end("specialize/1")
        assert (last["status"], last["attempt"]) == ("successful", 1), "the job went along"
        assert there.ping(1)["state"] == "idle"


def killed_and_started(daemon: Daemon, fleet: Fleet, label: str, changes: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the end of an update during which the daemon was killed after so many seconds, and started again."""
    fleet.order(label, {"set": changes, "trial_s": 1})
    pause(seconds)
    daemon.kill()
    daemon.start()
    return fleet.wait_end(label)


def kills_at_any_moment_end_well(daemon: Daemon, fleet: Fleet, times: int) -> None:
    """Kill the daemon at random moments of updates that hold and of updates that do not."""
    fleet.wait_birth()
    moments = random.Random(0)
    dead = f"mqtt://{HOST}:{free_port()}"
    for number in range(times):
        interval = 5 + number
        good = killed_and_started(
            daemon, fleet, f"config_update/good-{number}", {"telemetry.interval_s": interval}, moments.uniform(0.0, 0.5)
        )
        assert good["status"] == "successful"
        bad = killed_and_started(
            daemon,
            fleet,
            f"config_update/bad-{number}",
            {"broker.url": dead, "telemetry.interval_s": 3},
            moments.uniform(0.0, 2.0),
        )
        assert bad["error"]["code"] == "VERIFY_FAILED"
        found = overlay.read(daemon.state)
        assert (found.settings, found.trial) == ({"telemetry": {"interval_s": interval}}, None)
        assert fleet.ping(number)["state"] == "idle"
    for label in (f"config_update/{kind}-{number}" for kind in ("good", "bad") for number in range(times)):
        ends = [state for state in fleet.states(label) if state["status"] in ("successful", "failed")]
        assert len({(end["status"], end["rev"]) for end in ends}) == 1


def test_a_kill_at_any_moment_ends_well(daemon: Daemon, fleet: Fleet) -> None:
    kills_at_any_moment_end_well(daemon, fleet, 1)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_kills_at_any_moment_end_well(daemon: Daemon, fleet: Fleet) -> None:
    kills_at_any_moment_end_well(daemon, fleet, 25)


def test_the_service_manager_sees_it_start_again_and_not_stop(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    made = Daemon(tmp_path, broker.url)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with made.log_file.open("ab") as log:
            made.process = subprocess.Popen([sys.executable, *made.program, str(made.config)], stderr=log, env=environment)
        try:
            assert manager.recv(100) == b"READY=1"
            fleet.order("restart/1")
            words: list[bytes] = []
            while b"READY=1" not in words:
                words.append(manager.recv(100))
            assert b"STOPPING=1" not in words
            assert fleet.wait_end("restart/1")["status"] == "successful"
        finally:
            made.kill()


@pytest.mark.parametrize("at", range(overlay.MAX_STARTS))
def test_settings_that_bring_it_down_are_taken_back(tmp_path: Path, at: int) -> None:
    """As if each start so far had been cut short: the next one finds the trial, and the last one gives it up."""
    made = Daemon(tmp_path)
    (made.state / overlay.FILE).write_bytes(
        msgspec.json.encode(
            overlay.Overlay(
                {"training": {"epochs": 3}},
                overlay.Trial("config_update/1 1.0", {}, True, 600.0, ["training.epochs"], starts=at + 1),
            )
        )
    )
    with made as daemon:
        given_up = at + 1 == overlay.MAX_STARTS
        found = overlay.read(daemon.state)
        assert (found.trial is None) is given_up
        assert daemon.status()["updated"] == ([] if given_up else ["training.epochs"])
        os.kill(daemon.pid, signal.SIGTERM)
