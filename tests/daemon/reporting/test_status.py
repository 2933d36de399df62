from __future__ import annotations

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import WorkerSection
from reconvene_agent.core.job import Command, Status, Step
from reconvene_agent.core.protocol import Progress
from reconvene_agent.daemon.commands.running import RunningJob
from reconvene_agent.daemon.reporting import status
from reconvene_agent.daemon.reporting.status import Broker
from reconvene_agent.daemon.worker.supervision import Supervision
from support.agents import IDENTITY, WALL
from support.values import STATUS_KEYS, device, release

NOW = Now(WALL, 160.0)


def test_before_anything_is_known() -> None:
    document = status.document(IDENTITY, NOW, 100.0, "idle", Broker(""), None, None, None, [])
    assert list(document) == STATUS_KEYS
    assert (document["job"], document["release"], document["device"], document["problems"]) == (None, None, None, [])
    assert (document["uptime_s"], document["updated_at"]) == (60.0, "2026-01-01T00:00:00.000Z")


def test_with_everything_there_is() -> None:
    command = Command("specialize", "1", {}, "", WALL, WALL, Status.EXECUTING, rev=1, attempt=2)
    run = RunningJob(command, Supervision(WorkerSection(), 150.0), None, 150.0)
    run.hear(Progress(Step.TRAIN, 0.5, "epoch 3"), NOW)
    broker = Broker("mqtt://h", True, "5", "")
    document = status.document(IDENTITY, NOW, 100.0, "specialize", broker, run, release(), device(), [])
    assert document["job"] == {
        "op": "specialize",
        "id": "1",
        "status": "executing",
        "step": "train",
        "progress": 0.535,
        "note": "epoch 3",
        "attempt": 2,
        "elapsed_s": 10.0,
    }
    assert document["broker"] == {"url": "mqtt://h", "connected": True, "protocol": "5", "reason": ""}
    assert document["release"]["version"] == "r0001-00000000"
    assert document["device"]["cores"] == 4
    assert document["problems"] == []
    assert msgspec.json.decode(msgspec.json.encode(document)) == document | {
        "device": {**document["device"], "compatible": ["maker,board"]}
    }


def test_a_missing_broker_is_a_problem_only_where_one_is_configured() -> None:
    for url, problems in (("mqtt://h", ["no broker: not connected yet"]), ("", [])):
        document = status.document(IDENTITY, NOW, 100.0, "idle", Broker(url), None, None, None, ["an alarm"])
        assert document["problems"] == [*problems, "an alarm"]
