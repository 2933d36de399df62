from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from support.brokers import Mosquitto, wait_retained
from support.daemons import TOPICS, Daemon, Fleet, topic_of
from support.waiting import until
from support.workers import WORK, honest

# --- stopping and starting again ------------------------------------------------------------------------------------------------


def test_sigterm_suspends_the_run_and_a_restart_goes_on(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 5
    suspended = fleet.wait(lambda message: message.topic == topic_of("specialize/1") and b'"suspended"' in message.payload).json
    assert suspended["status"] == "executing"
    assert fleet.wait(lambda message: message.topic == TOPICS.health and b'"down"' in message.payload)
    go.touch()
    daemon.start()
    last = fleet.wait_end("specialize/1")
    assert (last["status"], last["attempt"]) == ("successful", 1)
    assert "specialize/1 goes on after a restart" in daemon.log


def test_sigkill_takes_the_worker_along_and_a_restart_goes_on(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    (worker,) = daemon.workers()
    daemon.kill()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    go.touch()
    daemon.start()
    last = fleet.wait_end("specialize/1")
    assert (last["status"], last["attempt"]) == ("successful", 2)


def test_a_run_that_brings_the_daemon_down_is_not_tried_for_ever(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    for _ in range(3):
        daemon.wait_step("train")
        daemon.kill()
        daemon.start()
    last = fleet.wait_end("specialize/1")
    assert last["error"]["code"] == "INTERRUPTED"
    assert fleet.ping("after")["state"] == "idle"


def test_it_can_be_stopped_as_soon_as_it_is_there(tmp_path: Path) -> None:
    made = Daemon(tmp_path)
    for _ in range(5):
        with made.launch() as process:
            until(made.socket.exists)
            process.terminate()
        assert process.returncode == 0
        assert not made.socket.exists()


def test_a_second_sigterm_changes_nothing(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGTERM)
    os.kill(daemon.pid, signal.SIGINT)
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0


def test_ctrl_c_ends_it_too(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGINT)
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0
    assert "Traceback" not in daemon.log


# --- a broker that goes away ----------------------------------------------------------------------------------------------------


def test_a_run_does_not_wait_for_the_broker_and_its_end_is_told_later(tmp_path: Path, go: Path) -> None:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        made = Daemon(tmp_path, broker.url, honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}"))
        with Fleet(broker.port) as fleet, made as daemon:
            fleet.wait_birth()
            fleet.order("specialize/1")
            daemon.wait_step("train")
            broker.stop()
            until(lambda: not daemon.status()["broker"]["connected"])
            go.touch()
            daemon.wait_state("idle")
            broker.start()
            assert fleet.wait_end("specialize/1")["status"] == "successful"
            assert fleet.wait_topic(TOPICS.event("epoch")).json["accuracy"] == 0.75
            fleet.wait_topic(TOPICS.event("model_promoted"))
            order = [message.json["seq"] for message in fleet.seen if "/m/" in message.topic or "/e/" in message.topic]
            assert (firsts := list(dict.fromkeys(order))) == sorted(firsts)  # what was not acknowledged comes twice


def test_health_is_set_right_when_somebody_says_down(daemon: Daemon, fleet: Fleet, broker: Mosquitto) -> None:
    fleet.wait_birth()
    seen = len(fleet.seen)
    fleet.send(TOPICS.health, {"status": "down", "session": "old"})
    fleet.wait(lambda message: message.topic == TOPICS.health and b'"up"' in message.payload, after=seen)
    assert wait_retained(broker.port, TOPICS.health).json["status"] == "up"
