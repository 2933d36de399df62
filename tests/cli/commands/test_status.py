"""``status``: the daemon's own word, and what it left when it is gone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.brokers import Mosquitto, free_port
from support.commandline import Cli, Ended, Running, command, configured
from support.daemons import Daemon, Fleet
from support.shelves import publish, serving
from support.values import STATUS_KEYS
from support.waiting import until
from support.workers import honest

KEYS = set(STATUS_KEYS)
JOB = {"op", "id", "status", "step", "progress", "note", "attempt", "elapsed_s"}
RELEASE = {
    "version", "architecture", "bundle", "sparsity", "precision", "bytes", "sha256", "params", "macs", "accuracy", "latency_ms",
    "created",
}  # fmt: skip
WORK = "channel.progress(Step.TRAIN, 0.25, 'epoch 1 of 4')\nwait_for('/nowhere', channel)"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as started:
        yield started


@pytest.fixture
def daemon(tmp_path: Path, broker: Mosquitto) -> Iterator[Daemon]:
    """Return a connected agent with a released model."""
    made = Daemon(tmp_path, broker.url, honest(tmp_path / "python", WORK))
    publish(made.state / "models", 1)
    with made:
        until(lambda: made.status()["broker"]["connected"])
        until(lambda: made.status()["release"])
        yield made


def status(daemon: Daemon, *words: str) -> Ended:
    return command("status", "--config", daemon.config, *words)


# --- an agent that runs ------------------------------------------------------------------------------------------------------


def test_the_document_of_a_healthy_agent(daemon: Daemon, broker: Mosquitto) -> None:
    ended = status(daemon, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert set(document) == KEYS
    assert (document["state"], document["device_id"], document["job"], document["problems"]) == ("idle", "board-1", None, [])
    assert document["broker"] == {"url": broker.url, "connected": True, "protocol": "5", "reason": ""}
    assert set(document["release"]) == RELEASE
    assert document["device"]["cores"] >= 1
    assert document["uptime_s"] >= 0


def test_the_running_job_is_part_of_the_status(daemon: Daemon, broker: Mosquitto) -> None:
    with Fleet(broker.port) as fleet:
        fleet.order("specialize/1", {"sparsity": 0.9})
        daemon.wait_step("train")
        document = status(daemon, "--json").document
        told = status(daemon).out
        fleet.order("cancel/2")
        fleet.wait_end("specialize/1")
    assert document["state"] == "specialize"
    assert set(document["job"]) == JOB
    assert (document["job"]["op"], document["job"]["id"], document["job"]["step"]) == ("specialize", "1", "train")
    assert re.search(r"^job       specialize/1: train \d+% \(epoch 1 of 4\), \d+ s$", told, re.MULTILINE)


def test_a_status_is_told_to_people_line_by_line(daemon: Daemon, broker: Mosquitto) -> None:
    told = status(daemon)
    assert (told.code, told.err) == (0, "")
    lines = {line[:10].strip(): line[10:] for line in told.out.splitlines()}
    assert list(lines) == ["state", "device", "broker", "model", "board"]
    assert (lines["state"], lines["device"], lines["broker"]) == ("idle", "board-1", f"{broker.url}, MQTT 5")
    version = serving(daemon.state / "models")
    assert lines["model"] == f"{version}: sparsity 0.9, 7 B, p95 2.00 ms, accuracy 90.0%"


def test_an_agent_without_its_broker_is_degraded(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    with Daemon(tmp_path, url) as daemon:
        until(lambda: "refused" in daemon.status()["broker"]["reason"].lower())
        ended = status(daemon, "--json")
        told = status(daemon)
    assert ended.code == told.code == 1
    (problem,) = ended.document["problems"]
    assert problem == f"no broker: {ended.document['broker']['reason']}"
    assert f"broker    {url}, not connected\n" in told.out
    assert f"problem   {problem}\n" in told.out


def test_an_agent_that_shall_have_no_broker_is_healthy(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        ended = status(daemon, "--json")
        assert ended.code == 0
        assert ended.document["broker"]["url"] == ""
        assert "broker" not in status(daemon).out


# --- an agent that does not run ----------------------------------------------------------------------------------------------


def test_what_a_killed_agent_last_said_is_still_told(daemon: Daemon, broker: Mosquitto) -> None:
    until((daemon.state / "status.json").exists)
    before = until(lambda: _connected(daemon))
    daemon.kill()
    ended = status(daemon, "--json")
    assert (ended.code, ended.err) == (3, "")
    document = ended.document
    assert set(document) == KEYS
    assert document["state"] == "not running"
    assert document["broker"]["connected"] is False
    assert document["problems"] == [f"the agent is not running (nobody answers at {daemon.socket})"]
    same = ("device_id", "version", "updated_at", "release", "device")
    assert {name: document[name] for name in same} == {name: before[name] for name in same}
    told = status(daemon)
    assert told.code == 3
    assert f"last seen {document['updated_at']}\n" in told.out
    assert f"broker    {broker.url}, not connected\n" in told.out
    assert "model     r0001-" in told.out


def _connected(daemon: Daemon) -> dict[str, object] | None:
    """Return what the agent has stored of itself, once that is all of it."""
    stored: dict[str, object] = msgspec.json.decode((daemon.state / "status.json").read_bytes())
    return stored if stored["release"] and stored["device"] else None


@pytest.mark.parametrize("stored", [None, b"", b"{", b"[]", b"\xff"])
def test_an_agent_that_never_said_anything(stored: bytes | None, cli: Cli, tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"device_id": "mine", "state_dir": str(tmp_path)}, broker={"url": "mqtt://somewhere"})
    if stored is not None:
        (tmp_path / "status.json").write_bytes(stored)
    ended = cli("status", "--config", config, "--json")
    assert (ended.code, ended.err) == (3, "")
    document = ended.document
    assert set(document) == KEYS - {"updated_at"}
    assert (document["state"], document["device_id"]) == ("not running", "mine")
    assert document["broker"] == {"url": "mqtt://somewhere", "connected": False}
    assert all(document[name] is None for name in ("uptime_s", "job", "release", "device"))
    told = cli("status", "--config", config)
    assert told.code == 3
    assert told.out.splitlines()[:3] == [
        "state     not running",
        "device    mine",
        "broker    mqtt://somewhere, not connected",
    ]


# --- watching ----------------------------------------------------------------------------------------------------------------


def test_watching_prints_again_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, Running("status", "--config", daemon.config, "--watch", "--json") as running:
        running.wait_line('"state":"idle"', "out")
        daemon.kill()
        running.wait_line('"state":"not running"', "out")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert (ended.code, ended.err) == (3, ""), "the code of what was seen last"
    documents = [msgspec.json.decode(line) for line in ended.out.splitlines()]
    assert len(documents) >= 2
    assert all(set(document) == KEYS for document in documents)


def test_watching_for_people_sets_every_look_apart(tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"device_id": "mine", "state_dir": str(tmp_path)})
    with Running("status", "--config", config, "--watch") as running:
        running.wait_line("problem ", "out")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert ended.code == 3
    assert ended.out.startswith("\nstate     not running\n")
    assert "\033" not in ended.out


def test_watching_ends_when_nobody_reads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    config = configured(tmp_path, agent={"state_dir": str(tmp_path)})
    try:
        ended = command("status", "--config", config, "--watch", stdout=writing)
    finally:
        os.close(writing)
    assert (ended.code, ended.err) == (141, "")
