"""The daemon as a real process, at a real broker, with workers that are honest but have no torch."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from reconvene_agent.core.errors import EXIT_CODES, ErrorCode
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.release import CURRENT, MANIFEST
from reconvene_agent.daemon.notify import Notifier
from support.brokers import HOST, Mosquitto, free_port, retained
from support.daemons import TOPICS, Daemon, Fleet, topic_of
from support.disks import fill, tiny_disk
from support.values import release
from support.waiting import until
from support.workers import honest

HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "onnxscript", "safetensors", "PIL", "rich")

# Goes through every step, tells of an epoch and of a release, and waits at training for a file called ``go``.
WORK = """
for step in Step:
    channel.progress(step, 0.0, step.value)
    if step is Step.TRAIN:
        channel.event("epoch", {"epoch": 1, "loss": 0.5, "accuracy": 0.75})
        wait_for(GO, channel)
    channel.progress(step, 1.0)
channel.event("release", {"version": "r0001-00000000", "bytes": 4096, "latency_ms": {"p50": 1.0, "p95": 2.0}})
return {"release": {"version": "r0001-00000000"}, "data": getattr(request, "data", None)}
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as started:
        yield started


@pytest.fixture
def fleet(broker: Mosquitto) -> Iterator[Fleet]:
    """Return a controller on a broker that holds nothing of earlier tests."""
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


# --- the conversation --------------------------------------------------------------------------------------------------------


def test_a_whole_run_on_the_wire(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    go.touch()
    fleet.order("specialize/1", {"sparsity": 0.9}, requester="me", **{"x-trace": [1, None]})
    last = fleet.wait_end("specialize/1")
    states = fleet.states("specialize/1")
    assert [state["status"] for state in states][:2] == ["scheduled", "executing"]
    assert {state["status"] for state in states[2:-1]} == {"executing"}
    revisions = [state["rev"] for state in states]
    assert revisions == sorted(set(revisions))
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    steps = list(dict.fromkeys(state["step"] for state in states if "step" in state))
    assert steps == ["probe", "plan", "prune", "train", "evaluate", "export", "promote"]
    assert (last["status"], last["progress"], last["attempt"]) == ("successful", 1.0, 1)
    assert last["result"]["data"] == str(daemon.state / "data/ours")
    assert all((state["requester"], state["x-trace"], state["args"]) == ("me", [1, None], {"sparsity": 0.9}) for state in states)


def states_of_health(fleet: Fleet) -> list[str]:
    """Return what the agent said it was doing, in order."""
    return [message.json["state"] for message in fleet.on(TOPICS.health) if b'"up"' in message.payload]


def test_what_else_the_fleet_hears(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    go.touch()
    fleet.order("specialize/1")
    fleet.wait_end("specialize/1")
    epoch = fleet.wait_topic(TOPICS.event("epoch")).json
    assert (epoch["command"], epoch["accuracy"]) == ("specialize/1", 0.75)
    promoted = fleet.wait_topic(TOPICS.event("model_promoted")).json
    assert promoted["seq"] > epoch["seq"]
    assert promoted["boot_id"] == epoch["boot_id"]
    assert fleet.wait_topic(TOPICS.measurement("training")).json["loss"] == 0.5
    assert fleet.wait_topic(TOPICS.measurement("inference")).json["latency_ms_p95"] == 2.0
    assert fleet.wait_topic(TOPICS.measurement("system")).json["agent_rss_mb"] > 0
    last = fleet.wait_topic(TOPICS.twin("last_result")).json
    assert (last["id"], last["status"]) == ("1", "successful")
    until(lambda: states_of_health(fleet) == ["idle", "specialize", "idle"])


def test_what_a_newcomer_finds_retained(daemon: Daemon, fleet: Fleet, broker: Mosquitto) -> None:
    fleet.wait_birth()
    fleet.ping(1)
    for op in OPERATIONS:
        fleet.wait_topic(TOPICS.capability(op))
    registration = retained(broker.port, TOPICS.service)
    assert registration is not None
    assert registration.json == {"@type": "service", "name": "reconvene-agent", "type": "ml-agent"}
    for topic in (TOPICS.health, TOPICS.twin("hardware"), TOPICS.twin("config"), TOPICS.capability("plan"), topic_of("ping/1")):
        assert retained(broker.port, topic) is not None, topic
    hardware = retained(broker.port, TOPICS.twin("hardware"))
    assert hardware is not None
    assert hardware.json["cores"] >= 1
    assert retained(broker.port, TOPICS.measurement("system")) is None


def test_the_deployed_model_is_part_of_the_twin(tmp_path: Path, fleet: Fleet, broker: Mosquitto) -> None:
    made = Daemon(tmp_path, broker.url)
    folder = made.state / "models/r0001-00000000"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(release()))
    (made.state / "models" / CURRENT).symlink_to(folder.name)
    with made:
        assert fleet.wait_topic(TOPICS.twin("model")).json["version"] == "r0001-00000000"
        assert until(lambda: made.status()["release"])["sparsity"] == 0.9


def test_a_plan_alone(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    fleet.order("plan/1")
    assert fleet.wait_end("plan/1")["status"] == "successful"


def test_a_busy_agent_says_so_and_answers_pings(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    fleet.order("plan/2")
    assert fleet.wait_end("plan/2")["error"]["code"] == "BUSY"
    assert fleet.ping(1)["state"] == "specialize"
    go.touch()
    assert fleet.wait_end("specialize/1")["status"] == "successful"


def test_cancel_in_the_middle_of_training(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    fleet.order("cancel/1", {"id": "1"})
    assert fleet.wait_end("cancel/1")["result"] == {"canceled": "specialize/1"}
    assert fleet.wait_end("specialize/1")["error"]["code"] == "CANCELED"
    assert daemon.workers() == []
    assert not list((daemon.state / "jobs").glob("*")) if (daemon.state / "jobs").exists() else True


def test_a_timeout_in_the_middle_of_training(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1", timeout_s=1)
    assert fleet.wait_end("specialize/1")["error"]["code"] == "TIMED_OUT"


def test_the_same_command_again_is_answered_and_not_done_again(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    fleet.order("specialize/1")
    first = fleet.wait_end("specialize/1")
    seen = len(fleet.seen)
    fleet.order("specialize/1")
    assert fleet.wait_status("specialize/1", "successful", after=seen) == first
    seen = len(fleet.seen)
    fleet.order("specialize/1", {"sparsity": 0.1})
    assert fleet.wait_status("specialize/1", "failed", after=seen)["error"]["code"] == "ID_REUSED"
    assert fleet.wait_status("specialize/1", "successful", after=seen) == first


REFUSALS: list[tuple[str, bytes, str]] = [
    ("specialize/r1", b"{", "INVALID_JSON"),
    ("specialize/r2", b'{"status":"\xff"}', "INVALID_JSON"),
    ("specialize/r3", b'{"a":' * 30_000, "INVALID_JSON"),
    ("specialize/r4", b"[]", "SCHEMA"),
    ("specialize/r5", b'{"status":"init","args":{"sparsity":"much"}}', "SCHEMA"),
    ("specialize/r6", b'{"status":"init","args":{"bundle":"../../etc"}}', "SCHEMA"),
    ("specialize/r7", b'{"status":"init","args":{"bundle":"a\\u0000b"}}', "SCHEMA"),
    ("specialize/r8", b'{"status":"init","args":{"data":"a\\u0000b"}}', "SCHEMA"),
    ("specialize/r9", ('{"status":"init","args":{"bundle":"' + "é" * 255 + '"}}').encode(), "BAD_BUNDLE"),
    ("specialize/r10", b'{"status":"init","args":{"bundle":"missing"}}', "BAD_BUNDLE"),
    ("specialize/r11", b'{"status":"init","args":{"data":"missing"}}', "NO_DATA"),
    ("specialize/r12", b'{"status":"init","expires_at":1}', "EXPIRED"),
    ("specialize/r13", b'{"status":"init","filler":"' + b"x" * 300_000 + b'"}', "SCHEMA"),
    ("teleport/r14", b'{"status":"init"}', "UNSUPPORTED"),
]


def test_what_cannot_be_done_is_refused_with_its_code(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    for label, payload, _ in REFUSALS:
        fleet.send(topic_of(label), payload)
        assert fleet.wait_end(label)["error"]["code"], label
    assert {label: fleet.wait_end(label)["error"]["code"] for label, _, _ in REFUSALS} == {
        label: code for label, _, code in REFUSALS
    }
    assert fleet.ping("after")["state"] == "idle"


def test_a_command_whose_state_is_larger_than_a_message_may_be(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("ping/large", filler="x" * (256 * 1024 - 80))
    assert fleet.wait_end("ping/large")["status"] == "successful"
    fleet.ping("after")
    fleet.ping("again")
    assert len(fleet.states("ping/large")) == 1, "its own echo is not answered"


def test_a_flood_of_retained_commands_is_answered_one_by_one(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    labels = [f"ping/{number}" for number in range(700)]
    for label in labels:
        fleet.order(label)
    with Daemon(tmp_path, broker.url) as daemon:
        for label in labels:
            assert fleet.wait_end(label)["status"] == "successful"
        fleet.wait_birth()
        assert daemon.status()["state"] == "idle"


# --- the process -------------------------------------------------------------------------------------------------------------


def test_the_daemon_holds_none_of_the_heavy_libraries(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    fleet.order("specialize/1")
    fleet.wait_end("specialize/1")
    daemon.status()
    mapped = {Path(line.split()[-1]) for line in Path(f"/proc/{daemon.pid}/maps").read_text().splitlines() if "/" in line}
    assert not [path for path in mapped if set(HEAVY) & set(path.parts) or path.name.startswith(("libtorch", "libonnx"))]
    assert [path for path in mapped if "msgspec" in path.parts], "what it does hold can be seen this way"


def test_the_daemons_modules_import_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; from reconvene_agent.daemon import lean; lean.postpone_unused();"
        "import reconvene_agent.daemon.service, reconvene_agent.daemon.__main__;"
        f"print(sorted(set({HEAVY!r}) & sys.modules.keys()), 'paho.mqtt.client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_its_memory_stays_small(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    for number in range(3):
        fleet.order(f"specialize/{number}")
        fleet.wait_end(f"specialize/{number}")
    assert psutil.Process(daemon.pid).memory_info().rss < 45e6


def test_what_it_postpones_works_when_it_is_wanted() -> None:
    code = (
        "import sys; from reconvene_agent.daemon import lean; lean.postpone_unused();"
        "import urllib.request; print(hasattr(urllib.request, 'urlopen'), hasattr(urllib.request, '__nothing__'));"
        "from urllib.request import getproxies; print(callable(getproxies)); import typing_extensions"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True"]


def test_the_service_manager_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        made = Daemon(tmp_path)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with made.log_file.open("ab") as log:
            made.process = subprocess.Popen(
                [sys.executable, "-m", "reconvene_agent.daemon", str(made.config)], stderr=log, env=environment
            )
        try:
            assert manager.recv(100) == b"READY=1"
            assert [manager.recv(100) for _ in range(5)] == [b"WATCHDOG=1"] * 5
            made.process.terminate()
            words = set()
            while b"STOPPING=1" not in words:
                words.add(manager.recv(100))
            assert made.process.wait(10) == 0
        finally:
            made.kill()
        assert Notifier({}).interval_s is None


# --- the local socket --------------------------------------------------------------------------------------------------------


def test_the_status_is_answered_while_there_is_no_broker(tmp_path: Path) -> None:
    with Daemon(tmp_path, f"mqtt://{HOST}:{free_port()}") as daemon:
        begun = time.monotonic()
        document = until(lambda: [found for found in [daemon.status()] if "refused" in found["broker"]["reason"]])[0]
        assert time.monotonic() - begun < 3
        assert document["broker"]["connected"] is False
        assert document["problems"] == [f"no broker: {document['broker']['reason']}"]
        assert daemon.log.count("no broker: ") == 1, "one clear line"
        assert "cannot be reached: Connection refused; next try in" in daemon.log
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


def test_without_a_configured_broker_it_just_works(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        assert daemon.status()["problems"] == []
        assert daemon.stop() == 0
    assert "no broker is configured" in daemon.log


def test_the_status_tells_what_runs(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    job = daemon.wait_step("train")
    assert (job["op"], job["id"], job["attempt"], job["note"]) == ("specialize", "1", 1, "train")
    document = daemon.status()
    assert (document["state"], document["device_id"]) == ("specialize", "board-1")
    assert document["broker"]["protocol"] == "5"
    assert document["device"]["memory"]["total_mb"] > 0


def test_the_last_known_status_stays_on_disk(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    assert daemon.stop() == 0
    assert msgspec.json.decode((daemon.state / "status.json").read_bytes())["state"] == "stopped"
    assert not daemon.socket.exists()


# --- starting badly ----------------------------------------------------------------------------------------------------------


def failed_start(made: Daemon) -> tuple[int, list[str]]:
    process = made.launch()
    code = process.wait(20)
    lines = made.log.splitlines()
    assert "Traceback" not in made.log
    return code, [line for line in lines if line.startswith("reconvene-agent: error: ")]


def test_a_wrong_configuration(tmp_path: Path) -> None:
    made = Daemon(tmp_path, "http://nowhere", worker={"attempts": 0})
    code, lines = failed_start(made)
    assert code == EXIT_CODES[ErrorCode.SCHEMA]
    assert [f"{made.config}: " in line for line in lines] == [True, True]
    assert "worker.attempts" in lines[0]
    assert "broker.url" in lines[1]


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    made = Daemon(tmp_path)
    made.config.unlink()
    code, lines = failed_start(made)
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.SCHEMA], 1)


def test_a_second_daemon_on_the_same_state(tmp_path: Path) -> None:
    with Daemon(tmp_path) as first:
        second = Daemon(tmp_path)
        second.log_file = tmp_path / "second"
        code, lines = failed_start(second)
        assert code == EXIT_CODES[ErrorCode.BUSY]
        assert lines == [f"reconvene-agent: error: another agent already runs on {first.state}"]
        assert first.status()["state"] == "idle"


def test_a_tls_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("rubbish")
    code, lines = failed_start(Daemon(tmp_path, "mqtts://nowhere", broker={"ca_file": str(tmp_path / "ca.pem")}))
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.INTERNAL], 1)
    assert "the TLS files of the broker cannot be used" in lines[0]


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = Daemon(tmp_path, agent={"state_dir": str(tmp_path / "file/state")})
    code, lines = failed_start(made)
    assert code == EXIT_CODES[ErrorCode.INTERNAL]
    assert lines == [f"reconvene-agent: error: the state folder {tmp_path}/file/state cannot be used: Not a directory"]


def test_an_unknown_profile(tmp_path: Path) -> None:
    code, lines = failed_start(Daemon(tmp_path, agent={"profile": "toaster"}))
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.SCHEMA], 1)
    assert "no profile is named 'toaster'" in lines[0]


def test_damaged_state_is_set_aside(tmp_path: Path) -> None:
    made = Daemon(tmp_path)
    for name in ("journal.db", "spool.db", "status.json", "control.sock"):
        (made.state / name).write_bytes(b"rubbish" * 1000)
    (made.state / "models").mkdir()
    (made.state / "models" / CURRENT).symlink_to("gone")
    with made:
        assert made.status()["state"] == "idle"
        assert (made.state / "journal.db.broken").exists()


# --- stopping and starting again ---------------------------------------------------------------------------------------------


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


# --- a broker that goes away -------------------------------------------------------------------------------------------------


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
    message = retained(broker.port, TOPICS.health)
    assert message is not None
    assert message.json["status"] == "up"


# --- a full disk -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_answered_and_survived(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> None:
    go.touch()
    (tmp_path / "state").mkdir()
    with tiny_disk(tmp_path / "state", "24m") as disk:
        made = Daemon(tmp_path, broker.url, honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}"))
        with made as daemon:
            fleet.wait_birth()
            ballast = fill(disk)
            fleet.order("specialize/1", filler="x" * 50_000)
            refused: Any = fleet.wait_end("specialize/1")
            assert (refused["error"]["code"], refused["error"]["retryable"]) == ("NO_DISK", True)
            assert fleet.ping("while-full")["state"] == "idle"
            assert daemon.status()["state"] == "idle"
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - (8 << 20))
            fleet.order("specialize/2")
            refused = fleet.wait_end("specialize/2")
            assert refused["error"]["code"] == "NO_DISK"
            assert "at least 16 are needed" in refused["reason"]
            ballast.unlink()
            seen = len(fleet.seen)
            fleet.order("specialize/1", filler="x" * 50_000)
            assert fleet.wait_status("specialize/1", "successful", "failed", after=seen)["status"] == "successful"
            assert daemon.stop() == 0


def test_a_disk_that_fills_during_a_run_loses_nothing(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> None:
    (tmp_path / "state").mkdir()
    with tiny_disk(tmp_path / "state", "24m") as disk:
        made = Daemon(tmp_path, broker.url, honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}"))
        with made as daemon:
            fleet.wait_birth()
            fleet.order("specialize/1", filler="x" * 50_000)
            daemon.wait_step("train")
            ballast = fill(disk)
            go.touch()
            assert fleet.wait_end("specialize/1")["status"] == "successful"
            ballast.unlink()
            fleet.ping("after")
            assert daemon.stop() == 0
            daemon.start()
            seen = len(fleet.seen)
            fleet.order("specialize/1", filler="x" * 50_000)
            assert fleet.wait_status("specialize/1", "successful", "failed", "executing", after=seen)["status"] == "successful"
