from __future__ import annotations

import msgspec

from reconvene_agent.core.contract.announced import HardwareMemory, HardwareStorage, ModelLatency
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Failure, Status
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.daemon.reporting import announce
from support.agents import IDENTITY, TOPICS, WALL
from support.values import device, release


def test_the_last_will_is_the_goodbye() -> None:
    assert msgspec.json.decode(announce.down(IDENTITY)) == {"status": "down", "session": "session-1"}


def test_a_capability_for_every_operation() -> None:
    topics = [effect.topic for effect in announce.birth(IDENTITY)]
    assert topics == [TOPICS.capability(op) for op in OPERATIONS]


def test_the_hardware_holds_nothing_that_changes_all_the_time() -> None:
    document = announce.hardware(device())
    assert document == announce.hardware(
        msgspec.structs.replace(device(available_mb=1.0, free_mb=2.0), temperature_c=99.0, clock_synchronized=False)
    )
    assert document.memory == HardwareMemory(2000.0, None)
    assert document.storage == HardwareStorage("/state", 8000.0)
    assert document.cores == 4


def test_the_model_tells_what_serves() -> None:
    document = announce.model(release())
    assert (document.version, document.sparsity, document.bytes) == ("r0001-00000000", 0.9, 4096)
    assert document.latency_ms == ModelLatency(1.0, 2.0)
    assert document.accuracy == 0.9


def test_how_the_last_job_ended() -> None:
    ended = Command("plan", "1", {}, "", WALL, WALL, Status.FAILED, error=Failure.of(ErrorCode.NO_DATA, "none"))
    assert msgspec.to_builtins(announce.last_result(ended)) == {
        "op": "plan",
        "id": "1",
        "status": "failed",
        "finished_at": "2026-01-01T00:00:00.000Z",
        "error": {"code": "NO_DATA", "retryable": False, "detail": "none"},
    }
