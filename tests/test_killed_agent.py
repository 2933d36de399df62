"""The daemon killed at a random moment of every run, again and again: what it has promised holds each time."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reconvene_agent.core import atomic, release
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.job import Status
from reconvene_agent.daemon.storage.journal import Journal
from support.brokers import Mosquitto
from support.daemons import TOPICS, Daemon, Fleet
from support.models import shipped
from support.waiting import until

ARGS = {"data": "rows.npz", "sparsity": 0.5, "training": {"epochs": 2}, "release": {"margin": 1.0}}
FEATURES, CLASSES, ROWS = 16, 3, 300


@pytest.fixture
def board(tmp_path: Path, broker: Mosquitto) -> Iterator[Daemon]:
    made = Daemon(tmp_path, broker.url)
    shutil.rmtree(made.state / "bundles/ours")
    shipped(made.state / "bundles/ours", ModelSpec("mlp", (FEATURES,), CLASSES))
    draw = np.random.default_rng(0)
    np.savez(made.state / "data/rows.npz", x=draw.standard_normal((ROWS, FEATURES)), y=np.arange(ROWS) % CLASSES)
    with made:
        yield made


def serving(board: Daemon) -> str:
    """Return the version of the current release, which is whole at any moment; empty before there is one."""
    folder = board.state / "models/current"
    if not folder.is_symlink():
        return ""
    manifest = release.read(folder)
    assert atomic.sha256(folder / "model.onnx") == manifest.onnx_sha256
    return manifest.version


def kill(board: Daemon) -> None:
    workers = board.workers()
    board.kill()
    until(lambda: not any(worker.is_running() for worker in workers))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("runs", [3, pytest.param(50, marks=pytest.mark.long)])
def test_a_daemon_that_is_killed_in_every_run_does_each_once(runs: int, board: Daemon, broker: Mosquitto) -> None:
    draw = random.Random(0)
    with Fleet(broker.port) as fleet:
        fleet.wait_birth()
        usual_s = 0.0
        for number in range(1, runs + 1):
            label, begun = f"specialize/{number}", time.monotonic()
            fleet.order(label, {**ARGS, "training": {**ARGS["training"], "seed": number}})
            killed = number > 1
            if killed:
                time.sleep(draw.uniform(0.0, 1.2 * usual_s))
                before = serving(board)
                kill(board)
                assert serving(board)[:5] in (before[:5], f"r{number:04d}")
                board.start()
            end = fleet.wait_end(label, 120)
            usual_s = usual_s or time.monotonic() - begun
            assert end["status"] == "successful", end
            assert end["attempt"] in ((1, 2) if killed else (1,))
            assert serving(board) == end["result"]["release"]["version"]
            assert serving(board).startswith(f"r{number:04d}-"), "one release for each run, none twice"
        until(lambda: board.status()["state"] == "idle")
        promoted = [message.json for message in fleet.on(TOPICS.event("model_promoted"))]
    assert board.stop() == 0
    seen = {(event["command"], event["version"]) for event in promoted}
    assert [command for command, _ in sorted(seen)] == sorted(f"specialize/{number}" for number in range(1, runs + 1))
    journal = Journal(board.state / "journal.db")
    try:
        ends = {command.label: command.status for command in journal.load()}
    finally:
        journal.close()
    assert ends == {f"specialize/{number}": Status.SUCCESSFUL for number in range(1, runs + 1)}
    assert list((board.state / "jobs").iterdir()) == [], "nothing is left of any run"
