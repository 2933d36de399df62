"""One example or more of every message: one specialise run on a board, and what else may happen to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.cli.contract import catalogue
from reconvene_agent.core import messages
from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.config import BrokerSection, Config, SpecializeSection
from reconvene_agent.core.contract import announced, records
from reconvene_agent.core.contract import results as told
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.gate import Rival
from reconvene_agent.core.job import Failure, State, Status, Step
from reconvene_agent.core.measuring import Conditions
from reconvene_agent.core.plan import Candidate, Miss, Plan
from reconvene_agent.core.release import Latency
from reconvene_agent.core.topics import SERVICE
from reconvene_agent.daemon.reporting.alarms import Alarm

_TIME = "2026-01-05T10:00:00.000Z"
_LATER = "2026-01-05T11:20:00.000Z"
_BOOT = "0b4cf8a1-6f0e-4d9c-8f2b-5a3f2a7c9e10"
_RUN = "specialize/run-1"
_VERSION, _BEFORE = "r0002-5d0f6c1a", "r0001-90b3f1c7"
_SHA256 = "5d0f6c1a" * 8
_FOLDER = f"/var/lib/reconvene-agent/models/{_VERSION}"

_LATENCY = Latency(11.8, 13.9, 180, 0.06)
_BUDGET = Budget(latency_ms=Limit(20.0, "command"), memory_mb=Limit(180.0, "profile raspberry-pi-4b: 20% of 900 MiB available"))
_CHOSEN = Candidate(
    sparsity=0.9,
    width_multiplier=1.0,
    params=31_000,
    bytes=141_000,
    macs=6_900_000,
    memory_mb=4.1,
    training_memory_mb=38.0,
    latency_ms=Latency(11.6, 13.8, 120, 0.05),
    feasible=True,
    why="within every limit",
    conditions=Conditions(0.02, 0.0, 0.0, False, 1.0),
    verified=True,
    memory_measured_mb=4.6,
)
_DENSE = msgspec.structs.replace(
    _CHOSEN,
    sparsity=0.0,
    params=272_000,
    bytes=1_102_000,
    macs=41_000_000,
    latency_ms=Latency(34.0, 36.2, 60, 0.04),
    feasible=False,
    why="latency_ms 36.2 is over the limit of 20",
    verified=False,
    memory_measured_mb=None,
)
_PLAN = Plan(_BUDGET, (_DENSE, _CHOSEN), _CHOSEN, None)
_MISS = Miss(0.98, 0.25, "latency_ms", 3.1, 2.0)
_PARAMS, _MACS, _SECONDS = told.Params(272_000, 31_000, 29_500), told.Macs(41_000_000, 6_900_000), told.Seconds(0.81)
_GATE = told.Gate(0.861, 0.859, Rival(_BEFORE, 0.852), 0.02, (), None)

_PRUNED = told.Pruned(
    sparsity=0.9,
    width_multiplier=1.0,
    layers=(told.Layer("layers.0.conv1", 2304, 310, 0.134549, "resilient", 16, 6, ""),),
    params=_PARAMS,
    macs=_MACS,
    seconds=_SECONDS,
    speedup=told.Compared(Latency(34.1, 36.0, 40, 0.04), 2.88, ""),
)
_TRAINED = told.Trained(
    epochs=10,
    best_epoch=9,
    batch=64,
    images=told.Inputs(4000, 1000, {"broken": 3}),
    seconds=4210.5,
    images_per_second=9.5,
    peak_rss_mb=301.2,
    memory_mb=41.7,
    accuracy=0.861,
    settings=told.Settled(10, 32, False, False, "float32", True, "cpu", memory_mb=told.TrainingMemory(38.0, 40.9), epoch_s=421.0),
)
_MADE = told.DeployedRelease(_FOLDER, f"{_FOLDER}/model.onnx", _VERSION, 141_000, _SHA256, "float32", _LATENCY)
_RESULT = told.SpecializeResult(_PLAN, _PRUNED, _TRAINED, _MADE, None, _GATE, 4e-6)

_REQUEST: dict[str, Any] = {"status": "init", "issued_at": "2026-01-05T10:00:00Z", "requester": "fleet"}
_ARGS: dict[str, dict[str, Any]] = {
    "specialize": {"bundle": "my-model", "data": "my-images", "budget": {"latency_ms": 20}},
    "plan": {"bundle": "my-model", "budget": {"latency_ms": 20}},
    "cancel": {"id": "run-1"},
    "rollback": {"steps": 1},
    "promote": {"version": _BEFORE},
    "config_update": {"set": {"budget.latency_ms": 20, "agent.log_level": None}},
    "log_upload": {"lines": 50, "level": "warning"},
}
_RESULTS: dict[str, Struct] = {
    "specialize": _RESULT,
    "plan": told.PlanResult(_BUDGET, (_DENSE, _CHOSEN), _CHOSEN, None, seconds=41.2),
    "cancel": told.CancelResult(_RUN),
    "rollback": told.SwitchResult(_VERSION, _BEFORE),
    "promote": told.SwitchResult(_VERSION, _BEFORE),
    "pause": told.PauseResult("command (pause/now)"),
    "resume": told.PauseResult(None),
    "config_update": told.ConfigUpdateResult(("budget.latency_ms",)),
    "log_upload": told.LogUploadResult(1, 1),
    "restart": told.RestartResult(812, "0.1.0"),
    "ping": told.PingResult("idle", "0.1.0"),
}


def _state(status: Status, progress: float = 0.0, attempt: int = 0, rev: int = 1, **more: Any) -> State:
    return State(status, rev, progress, attempt, _TIME, **more)


def _about(seq: int) -> dict[str, Any]:
    return {"time": _TIME, "boot_id": _BOOT, "seq": seq}


def _of(seq: int) -> dict[str, Any]:
    return {**_about(seq), "command": _RUN}


def _release() -> dict[str, Any]:
    made: dict[str, Any] = {name: getattr(_MADE, name) for name in _MADE.__struct_fields__}
    return {**made, "accuracy": 0.861, "sparsity": 0.9}


def _typed() -> Iterator[Struct]:
    yield announced.Registration(SERVICE, "ml-agent")
    yield announced.Up(812, _TIME, "3f9d2c71ab04", _BOOT, "0.1.0", "idle")
    yield announced.Down("3f9d2c71ab04")
    yield announced.Hardware(
        "Raspberry Pi 4 Model B Rev 1.4",
        ("raspberrypi,4-model-b", "brcm,bcm2711"),
        "aarch64",
        "Cortex-A72",
        4,
        announced.HardwareMemory(1850.3, None),
        announced.HardwareStorage("/var/lib/reconvene-agent", 29_600.0),
        "Debian GNU/Linux 12 (bookworm)",
        "6.6.31+rpt-rpi-v8",
    )
    yield announced.Model(
        version=_VERSION,
        architecture="resnet20",
        bundle="c2" * 32,
        sparsity=0.9,
        precision="float32",
        bytes=141_000,
        sha256=_SHA256,
        params=31_000,
        macs=6_900_000,
        accuracy=0.861,
        latency_ms=announced.ModelLatency(11.8, 13.9),
        created=_LATER,
    )
    yield announced.LastResult("specialize", "run-1", "successful", _LATER)
    yield announced.LastResult(
        "plan", "run-0", "failed", _LATER, Failure.of(ErrorCode.NO_DATA, "/var/lib/reconvene-agent/data/my-images is not there")
    )
    yield Alarm("the disk of / is nearly full: free at least 384 MiB of it", "major", _TIME)
    yield from _records()


def _records() -> Iterator[Struct]:
    yield records.System(
        **_about(1),
        cpu_percent=3.2,
        memory_available_mb=1211.4,
        memory_used_mb=638.9,
        swap_used_mb=0.0,
        temperature_c=48.2,
        storage_free_mb=22_310.0,
        load_1min=0.11,
        agent_rss_mb=27.6,
    )
    yield records.Training(**_about(5), epoch=9, loss=0.412, accuracy=0.861, learning_rate=0.004)
    yield records.Inference(**_about(7), latency_ms_p50=11.8, latency_ms_p95=13.9, bytes=141_000)
    yield records.PlanChosen(**_of(2), sparsity=0.9, chosen=_CHOSEN)
    yield records.ModelPruned(**_of(3), sparsity=0.9, params=_PARAMS, macs=_MACS, seconds=_SECONDS)
    yield records.Epoch(**_of(4), epoch=9, epochs=10, loss=0.412, accuracy=0.861, learning_rate=0.004, best=True)
    yield records.ReleaseMade(**_of(6), **_release())
    refused = msgspec.structs.replace(_GATE, refused=("latency_ms is 22.4 where 20 is allowed (command)",))
    yield records.ReleaseRefused(**_of(6), **_release(), gate=refused)
    yield records.Switched(**_about(8), command="rollback/now", before=_VERSION, after=_BEFORE)
    reason = f"{_FOLDER}/model.onnx is not the file that was deployed"
    yield records.Fell(**_about(9), before=_VERSION, after=_BEFORE, reason=reason)
    grown: dict[str, Any] = {"command": "specialize/auto-6b1f0c9e7a21", "files": 6200, "bytes": 40_000_000, "new_share": 0.24}
    yield records.DataChanged(**_about(10), **grown)
    yield records.Paused(**_about(11), command=_RUN, cause="heat", reason="81 °C are too hot; it goes on at 70 °C")
    yield records.Resumed(**_about(12), command=_RUN)
    killed = "the kernel killed the worker for want of memory; it is planned again within tighter limits"
    yield records.Replanned(**_of(13), reason=killed, limits_mb={"training_memory_mb": 210.0})
    yield records.Throttled(**_about(14), temperature_c=82.1)
    text = "3 of 5003 files were skipped: 3 broken"
    yield records.Warned(**_of(15), text=text, skipped={"broken": 3}, examples=("cat/0007.jpg: it cannot be decoded",))
    line = records.LogLine(_TIME, "warning", "it is planned again", op="specialize", command="run-1", job="9f86d081884c7d65")
    yield records.Logged(**_about(16), command="log_upload/now", part=1, parts=1, lines=(line,))


def _commands() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the requests and states of every operation; a state holds the request's fields too."""
    waits = _state(Status.SCHEDULED, reason="waits for its not_before")
    yield "SpecializeState", {**_asked("specialize"), "not_before": 1767614400, **_plain(waits)}
    yield "SpecializeState", {**_asked("specialize"), **_plain(_state(Status.EXECUTING, 0.52, 1, 31, step=Step.TRAIN))}
    for op in messages.OPERATIONS:
        title = catalogue.request_of(op).__name__.removesuffix("Request")
        yield f"{title}Request", _asked(op)
        if op in _RESULTS:
            result = msgspec.to_builtins(_RESULTS[op])
            yield f"{title}State", {**_asked(op), **_plain(_state(Status.SUCCESSFUL, 1.0, 1, 58, result=result))}
    infeasible = msgspec.to_builtins(told.PlanResult(_BUDGET, (_DENSE,), None, _MISS, seconds=38.0))
    text = "nothing fits the budget: latency_ms is 3.1 at best where 2 is allowed"
    yield "PlanState", {**_asked("plan"), **_plain(_failed(ErrorCode.INFEASIBLE, text, result=infeasible, attempt=1, rev=9))}
    yield "Request", {"status": "init", "args": {}}
    refused = _failed(ErrorCode.UNSUPPORTED, f"operation 'fly' is not known; there are: {', '.join(messages.OPERATIONS)}")
    yield "State", {"args": {}, **_plain(refused)}


def _asked(op: str) -> dict[str, Any]:
    return {**_REQUEST, "args": _ARGS.get(op, {})}


def _failed(code: ErrorCode, text: str, **more: Any) -> State:
    return _state(Status.FAILED, reason=text, error=Failure.of(code, text), **more)


def _plain(kind: Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(kind)
    return found


def examples() -> dict[str, list[Any]]:
    """Return the examples of every message, by its name."""
    found: dict[str, list[Any]] = {"Cleared": [""]}
    for kind in _typed():
        found.setdefault(type(kind).__name__, []).append(_plain(kind))
    # Without its reference, which readers of an AsyncAPI document would follow.
    promote = messages.OPERATIONS["promote"]
    args = msgspec.json.schema(promote.args)["$defs"][promote.args.__name__]
    found["Capability"] = [_plain(announced.Capability(promote.description, args))]
    settings = Config(
        broker=BrokerSection(url="mqtts://broker.example", username="board-1", password_file="/etc/reconvene-agent/password"),  # noqa: S106
        specialize=SpecializeSection(bundle="my-model", data="my-images"),
    )
    found["Settings"] = [{**settings.public(), "updated": ["budget.latency_ms"]}]
    for name, payload in _commands():
        found.setdefault(name, []).append(payload)
    return found
