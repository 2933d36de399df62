"""The main job with nothing replaced: Mosquitto, the real daemon, its real worker, real images; killed in the middle."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import psutil
import pytest

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.priority import NICENESS
from support.brokers import Mosquitto, retained
from support.contract import Contract
from support.cores import on_one_core
from support.daemons import TOPICS, Daemon, Fleet
from support.models import shipped
from support.pictures import digits
from support.runs import archive
from support.waiting import until

pytestmark = pytest.mark.slow

TRAINED, HELD_OUT = 1000, 300
ARGS = {"data": "digits.npz", "sparsity": 0.9, "training": {"epochs": 8, "batch": 32, "augment": "none"}}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as started:
        yield started


def test_a_model_is_made_over_mqtt_though_the_board_dies_in_the_middle(tmp_path: Path, broker: Mosquitto) -> None:
    board = Daemon(tmp_path, broker.url)
    shutil.rmtree(board.state / "bundles/ours")
    shipped(board.state / "bundles/ours", ModelSpec("resnet20", (1, 8, 8), 10))
    archive(board.state / "data/digits.npz", TRAINED)
    with on_one_core(), Fleet(broker.port) as fleet, board:
        fleet.wait_birth()
        fleet.order("specialize/1", ARGS)
        epoch = fleet.wait_topic(TOPICS.event("epoch"), 60).json
        workers = board.workers()
        assert {worker.nice() - psutil.Process(board.pid).nice() for worker in workers} == {NICENESS}
        board.kill()
        until(lambda: not any(worker.is_running() for worker in workers))
        board.start()
        end = fleet.wait_end("specialize/1", 90)
        states, epochs = fleet.states("specialize/1"), fleet.on(TOPICS.event("epoch"))
        result, model = (
            end["result"],
            fleet.wait(lambda message: message.topic == TOPICS.twin("model") and message.payload != b"").json,
        )
        until(lambda: board.status()["state"] == "idle")
        assert board.status()["release"]["version"] == result["release"]["version"]
        assert not [message for message in fleet.on(TOPICS.health) if b'"down"' in message.payload]  # the last will waits
        assert board.stop() == 0

    contract = Contract(TOPICS)
    assert all(contract.check(message.topic, message.payload) for message in fleet.published())
    assert (end["status"], end["attempt"]) == ("successful", 2)
    revisions = [state["rev"] for state in states]
    assert revisions == sorted(revisions)
    numbers = [message.json["epoch"] for message in epochs]
    assert epoch["epoch"] in numbers
    assert sorted(set(numbers)) == list(range(1, 9))
    assert numbers[-1] == 8, "what is done again after a checkpoint is told again"
    assert (model["version"], model["accuracy"]) == (result["release"]["version"], result["training"]["accuracy"])
    assert result["training"]["accuracy"] > 0.7
    assert result["parity_max_abs_diff"] < 1e-3

    current = board.state / "models/current"
    assert current.resolve() == Path(result["release"]["path"])
    assert not [
        path
        for path in (board.state / "models").iterdir()
        if not re.fullmatch(r"current|shelf\.json|r0001-[0-9a-f]{8}", path.name)
    ]
    session = onnxruntime.InferenceSession(str(current / "model.onnx"), providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    mean, std = (np.array(msgspec.json.decode(notes[name]), np.float32) for name in ("mean", "std"))
    x, y = digits(TRAINED + HELD_OUT)
    unseen = (x[TRAINED:, None].astype(np.float32) / 255 - mean) / std
    (logits,) = session.run(None, {"image": unseen.astype(np.float32)})
    assert np.mean(logits.argmax(1) == y[TRAINED:]) > 0.7
    assert retained(broker.port, TOPICS.command("specialize", "1")) is not None


def test_a_plan_is_made_over_mqtt(tmp_path: Path, broker: Mosquitto) -> None:
    board = Daemon(tmp_path, broker.url)
    shutil.rmtree(board.state / "bundles/ours")
    shipped(board.state / "bundles/ours", ModelSpec("resnet20", (1, 8, 8), 10))
    with Fleet(broker.port) as fleet, board:
        fleet.wait_birth()
        fleet.order("plan/1", {"budget": {"latency_ms": 1000, "model_mb": 0.3}})
        plan = fleet.wait_end("plan/1", 60)["result"]
        fleet.order("plan/2", {"budget": {"model_mb": 0.001}})
        refused = fleet.wait_end("plan/2", 60)
    contract = Contract(TOPICS)
    assert all(contract.check(message.topic, message.payload) for message in fleet.published())
    assert 0 < plan["chosen"]["sparsity"] < 1
    assert plan["chosen"]["bytes"] <= 0.3 * 2**20
    assert plan["budget"]["model_mb"]["source"] == "command"
    assert all(not each["feasible"] for each in plan["candidates"] if each["sparsity"] < plan["chosen"]["sparsity"])
    assert (refused["status"], refused["error"]["code"]) == ("failed", "INFEASIBLE")
    assert refused["result"]["nearest_miss"]["limit"] == "model_mb"
