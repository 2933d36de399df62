"""Every error code of the wire contract, as a controller comes to see it.

Each code has the shortest story that ends with it. What the agent finds out is told to the pure agent; what a worker finds out
comes from the worker's real code, on real bundles and data. A new code needs a story here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper

from reconvene_agent.core.bundle import MANIFEST
from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.options import MethodOptions, ReleaseOptions
from reconvene_agent.core.protocol import Failed, Request, Scoring, Suspended
from reconvene_agent.daemon import events
from reconvene_agent.worker import __main__ as worker
from reconvene_agent.worker import memory, pipeline
from reconvene_agent.worker.planning import search
from support.agents import CONFIG, JOB, WALL, AgentBench, command_topic
from support.models import ModelSpec, exporter, shipped
from support.pictures import digits
from support.runs import Ear, plan_request, specialize_request
from support.signatures import TRUSTED, signed

DOCS = Path(__file__).parents[2] / "docs" / "mqtt.md"
SPEC = ModelSpec("mlp", (64,), 10)
Story = Callable[[AgentBench], None]
AGENT: dict[ErrorCode, Story] = {}
WORKER: dict[ErrorCode, Callable[[Shop], Request]] = {}


def agent(code: ErrorCode) -> Callable[[Story], Story]:
    """Register the story of a code that the agent finds out."""

    def register(story: Story) -> Story:
        AGENT[code] = story
        return story

    return register


def work(code: ErrorCode) -> Callable[[Callable[[Shop], Request]], Callable[[Shop], Request]]:
    """Register the request that ends with a code in the worker."""

    def register(order: Callable[[Shop], Request]) -> Callable[[Shop], Request]:
        WORKER[code] = order
        return order

    return register


@agent(ErrorCode.INVALID_JSON)
def _(bench: AgentBench) -> None:
    bench.receive(command_topic(JOB), b'{"status":')


@agent(ErrorCode.SCHEMA)
def _(bench: AgentBench) -> None:
    bench.command(JOB, {"sparsity": "much"})


@agent(ErrorCode.UNSUPPORTED)
def _(bench: AgentBench) -> None:
    bench.command("reboot/1")


@agent(ErrorCode.ID_REUSED)
def _(bench: AgentBench) -> None:
    bench.command("ping/1")
    bench.forget()
    bench.command("ping/1", requester="another")


@agent(ErrorCode.BAD_SIGNATURE)
def _(bench: AgentBench) -> None:
    bench.keys = TRUSTED
    bench.restart()
    bench.command(JOB)


@agent(ErrorCode.REPLAYED)
def _(bench: AgentBench) -> None:
    message = signed(JOB)
    bench.keys, bench.floor = TRUSTED, WALL + 3600  # what was good until then has been forgotten
    bench.restart()
    bench.receive(command_topic(JOB), msgspec.json.encode(message))


@agent(ErrorCode.EXPIRED)
def _(bench: AgentBench) -> None:
    bench.command(JOB, not_before=WALL + 60, expires_at=WALL + 30)
    bench.wait(30)


@agent(ErrorCode.CLOCK_UNSYNCED)
def _(bench: AgentBench) -> None:
    bench.config = msgspec.structs.replace(CONFIG, worker=msgspec.structs.replace(CONFIG.worker, windows=("00:00-23:59",)))
    bench.restart()
    bench.command(JOB, timeout_s=60)
    bench.now = Now(bench.now.wall, bench.now.mono, False)
    bench.restart()
    bench.wait(60)


@agent(ErrorCode.BUSY)
def _(bench: AgentBench) -> None:
    for label in ("plan/1", "plan/2", JOB):
        bench.command(label)


@agent(ErrorCode.OUTSIDE_WINDOW)
def _(bench: AgentBench) -> None:
    bench.config = msgspec.structs.replace(CONFIG, worker=msgspec.structs.replace(CONFIG.worker, windows=("12:00-13:00",)))
    bench.restart()
    bench.command(JOB, expires_at=WALL + 60)


@agent(ErrorCode.THERMAL)
def _(bench: AgentBench) -> None:
    bench.fare(90.0)
    bench.command(JOB, expires_at=WALL + 60)
    bench.wait(60)


@agent(ErrorCode.NO_DISK)
def _(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.JournalFailed(JOB, "database or disk is full"))


@agent(ErrorCode.TIMED_OUT)
def _(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=30)
    bench.wait(30)
    bench.end(returncode=-15)


@agent(ErrorCode.CANCELED)
def _(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("cancel/1")
    bench.say(Suspended())
    bench.end()


@agent(ErrorCode.INTERRUPTED)
def _(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.end(returncode=-9)


@agent(ErrorCode.OOM_KILLED)
def _(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.end(returncode=-9, oom=True)
    bench.end(returncode=-9, oom=True)


@agent(ErrorCode.INTERNAL)
def _(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.end(returncode=-11)


class Shop:
    """What a worker needs: a bundle, data, and a place for all that comes of them."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.patch = patch
        self.bundle = shipped(root / "bundle", SPEC)
        self.data = root / "digits.npz"
        x, y = digits(600)
        np.savez(self.data, x=x.reshape(len(x), -1).astype(np.float32), y=y)


@work(ErrorCode.BAD_BUNDLE)
def _(shop: Shop) -> Request:
    (shop.bundle / MANIFEST).write_bytes(b"{")
    return plan_request(shop.bundle)


@work(ErrorCode.NO_DATA)
def _(shop: Shop) -> Request:
    return specialize_request(shop.bundle, shop.root / "nowhere", shop.root)


@work(ErrorCode.BAD_DATA)
def _(shop: Shop) -> Request:
    shop.data.write_bytes(b"PK\x03\x04 and no more")
    return specialize_request(shop.bundle, shop.data, shop.root)


@work(ErrorCode.INFEASIBLE)
def _(shop: Shop) -> Request:
    return plan_request(shop.bundle, None, model_mb=1e-6)


@work(ErrorCode.NO_MEMORY)
def _(shop: Shop) -> Request:
    scoring = Scoring(str(shop.data), memory_mb=0.01)
    return msgspec.structs.replace(plan_request(shop.bundle), method=MethodOptions(criterion="grasp"), scoring=scoring)


@work(ErrorCode.DIVERGED)
def _(shop: Shop) -> Request:
    return specialize_request(shop.bundle, shop.data, shop.root, learning_rate=1e12, epochs=3)


@work(ErrorCode.EXPORT_MISMATCH)
def _(shop: Shop) -> Request:
    right = exporter(SPEC).to_onnx

    def wrong(model: torch.nn.Module) -> ModelProto:
        proto = right(model)
        bias = next(each for each in proto.graph.initializer if each.name == "classifier.bias")
        bias.CopyFrom(numpy_helper.from_array(np.full(10, 0.5, dtype=np.float32), bias.name))
        return proto

    shop.patch.setattr(exporter(SPEC), "to_onnx", wrong)
    return specialize_request(shop.bundle, shop.data, shop.root, epochs=1)


@work(ErrorCode.VERIFY_FAILED)
def _(shop: Shop) -> Request:
    request = specialize_request(shop.bundle, shop.data, shop.root, epochs=1, learning_rate=1e-6)
    return msgspec.structs.replace(request, release=ReleaseOptions())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Return a shop that times less than a board would."""
    resident = memory.resident_mb
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MEASURE_SECONDS", 0.01)
        patch.setattr(memory, "settled_mb", resident)
        patch.setattr(pipeline, "COMPARE_SECONDS", 0.01)
        patch.setattr(pipeline, "FINAL_MEASURE_SECONDS", 0.01)
        patch.setattr(pipeline, "Exporter", lambda *_: exporter(SPEC))
        yield Shop(tmp_path, patch)


def ended(bench: AgentBench) -> dict[str, dict[str, object]]:
    """Return the error of every command that failed, by code."""
    topics = {effect.topic for effect in bench.effects if hasattr(effect, "topic") and "/cmd/" in effect.topic}
    labels = ["/".join(topic.split("/")[-2:]) for topic in topics]
    states = [state for label in labels for state in bench.states(label) if state["status"] == "failed"]
    return {state["error"]["code"]: state["error"] for state in states}


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.value)
def test_a_controller_comes_to_see_it(code: ErrorCode, request: pytest.FixtureRequest) -> None:
    assert (code in AGENT) != (code in WORKER), f"{code.value} needs a story in tests/daemon/test_error_codes.py, and one alone"
    bench = AgentBench()
    bench.post(events.Started())
    bench.connect()
    if code in AGENT:
        AGENT[code](bench)
    else:
        outcome = worker._run(Ear(), WORKER[code](request.getfixturevalue("shop")))  # type: ignore[arg-type]
        assert isinstance(outcome, Failed), outcome
        assert outcome.code is code, outcome
        bench.command(JOB)
        bench.say(outcome)
        bench.end()
    errors = ended(bench)
    assert errors.keys() == {code.value}
    assert errors[code.value]["retryable"] is code.retryable
    assert errors[code.value]["detail"]


def test_the_page_names_every_code_and_whether_it_is_worth_repeating() -> None:
    table = DOCS.read_text().split("## Error codes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([A-Z_, ]+) \| .* \| (yes|no) \|$", table, re.MULTILINE)
    told = {code: again == "yes" for codes, again in rows for code in codes.split(", ")}
    assert told == {code.value: code.retryable for code in ErrorCode}
