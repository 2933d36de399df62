from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from onnx import ModelProto, TensorProto, helper

from reconvene_agent.core import release as releases
from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import TimeRequest
from reconvene_agent.core.release import Latency, Release
from reconvene_agent.worker.deploy import release
from reconvene_agent.worker.deploy.release import Facts
from reconvene_agent.worker.deploy.timing import time_deployed
from reconvene_agent.worker.models.costs import Costs, TrainingCosts
from support.models import RUNTIME
from support.runs import Ear, Watched

BUDGET = Budget(latency_ms=Limit(5.0, "profile"))


def flatten() -> ModelProto:
    """Return a model that does next to nothing."""
    entry = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 4, 4])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 48])
    graph = helper.make_graph([helper.make_node("Flatten", ["image"], ["logits"])], "flatten", [entry], [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a models folder with one release."""
    facts = Facts(
        bundle="b" * 64,
        spec=ModelSpec("vgg11", (3, 4, 4), 3),
        labels=(),
        sparsity=0.5,
        method=MethodOptions(),
        widths={},
        costs=Costs(params=1, nonzero=1, macs=1, file_bytes=1, memory=3 << 20, training=TrainingCosts(1, 0, 1, 1)),
        accuracy=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        budget=BUDGET,
    )
    release.prepare(flatten(), facts, tmp_path / "models/.aside.tmp")
    release.promote(tmp_path / "models/.aside.tmp", tmp_path / "models", facts, Latency(1.0, 1.0, 30))
    return tmp_path / "models"


def current(models: Path) -> Release:
    found = releases.current(models)
    assert found is not None
    return found


def test_a_release_notes_the_memory_and_the_budget_that_it_was_made_for(models: Path) -> None:
    assert (current(models).memory_mb, current(models).budget) == (3.0, BUDGET)


def test_a_release_of_before_has_neither(models: Path) -> None:
    document = msgspec.to_builtins(current(models))
    del document["memory_mb"], document["budget"]
    found = msgspec.convert(document, Release)
    assert (found.memory_mb, found.budget) == (0.0, Budget())


def test_the_deployed_model_is_timed(models: Path) -> None:
    found = time_deployed(TimeRequest(str(models), RUNTIME, 0.05), Ear())  # type: ignore[arg-type]
    assert found["version"] == current(models).version
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p95"]
    assert found["latency_ms"]["runs"] >= 30


def test_a_file_that_was_altered_is_not_timed(models: Path) -> None:
    (models / "current/model.onnx").write_bytes(b"x")
    with pytest.raises(AgentError, match=r"has 1 bytes, not the \d+ that were deployed"):
        time_deployed(TimeRequest(str(models), RUNTIME), Ear())  # type: ignore[arg-type]


def test_a_real_worker_does_it(models: Path) -> None:
    outcome = Watched(TimeRequest(str(models), RUNTIME, 0.05)).outcome
    assert outcome.result["version"] == current(models).version  # type: ignore[union-attr]


def test_neither_torch_nor_onnx_is_loaded_for_it(models: Path) -> None:
    program = f"""
import sys
from reconvene_agent.core.protocol import Runtime, TimeRequest
from reconvene_agent.worker import operations
class Deaf:
    def progress(self, *_): pass
operations.run(TimeRequest({str(models)!r}, Runtime(1, 1, ("CPUExecutionProvider",), 8), 0.01), Deaf())
assert "onnxruntime" in sys.modules
assert not {{"torch", "onnx", "PIL"}} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
