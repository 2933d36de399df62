from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy import session
from reconvene_agent.worker.deploy.session import MAX_RUNS, MIN_RUNS, WARM_UP, Stopwatch, measure, open_session, percentiles

CPU = ("CPUExecutionProvider",)


@pytest.fixture(scope="module")
def doubling() -> bytes:
    """A model that doubles its image."""
    entry, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 2, 3]) for name in ("image", "logits"))
    graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["logits"])], "doubling", [entry], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Fake:
    """Stands for a session: takes a set time by a clock that only it moves."""

    def __init__(self, clock: FakeClock, milliseconds: float) -> None:
        self.clock = clock
        self.milliseconds = milliseconds
        self.calls = 0

    def get_inputs(self) -> list[object]:
        return [type("Input", (), {"name": "image", "shape": ["batch", 1, 2, 3]})]

    def run(self, _outputs: None, feed: dict[str, np.ndarray]) -> None:
        assert feed["image"].shape == (1, 1, 2, 3)
        assert feed["image"].dtype == np.float32
        self.calls += 1
        self.clock.order.append(self)
        self.clock.seconds += self.milliseconds / 1000


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.order: list[Fake] = []

    def perf_counter(self) -> float:
        return self.seconds

    def perf_counter_ns(self) -> int:
        return round(self.seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(session, "time", fake)
    return fake


def test_a_model_is_opened_from_a_file_or_from_memory_and_answers(doubling: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(doubling)
    image = np.ones((2, 1, 2, 3), dtype=np.float32)
    for model in (doubling, tmp_path / "m.onnx"):
        opened = open_session(model, Runtime(1, 1, CPU, 8))
        assert np.array_equal(opened.run(None, {"image": image})[0], 2 * image)


@pytest.mark.parametrize("wanted", [("TensorrtExecutionProvider", *CPU), ("NoSuchProvider",), ()])
def test_of_the_profiles_providers_those_that_are_there_are_taken_and_the_processor_is_always_there(
    doubling: bytes, wanted: tuple[str, ...]
) -> None:
    assert open_session(doubling, Runtime(1, 1, wanted, 8)).get_providers() == list(CPU)


def test_the_threads_are_the_profiles(doubling: bytes) -> None:
    options = open_session(doubling, Runtime(2, 1, CPU, 8)).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1


def test_what_is_no_model_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"hello")
    for model in (b"hello", tmp_path / "m.onnx", tmp_path / "none.onnx"):
        with pytest.raises(AgentError, match="ONNX Runtime cannot load the model") as caught:
            open_session(model, Runtime(1, 1, CPU, 8))
        assert caught.value.code is ErrorCode.EXPORT_MISMATCH
        assert len(caught.value.message.splitlines()) == 1


def test_the_stopwatch_warms_up_without_counting_and_then_times_single_inferences(clock: FakeClock) -> None:
    fake = Fake(clock, 2.0)
    watch = Stopwatch(fake)
    watch.warm_up()
    assert (fake.calls, watch.milliseconds) == (WARM_UP, [])
    watch.run(3)
    assert watch.milliseconds == pytest.approx([2.0, 2.0, 2.0])
    assert watch.latency.p50 == watch.latency.p95 == 2.0
    assert watch.latency.runs == 3


def test_percentiles_are_median_and_95th() -> None:
    latency = percentiles([float(each) for each in range(1, 102)])
    assert (latency.p50, latency.p95, latency.runs) == (51.0, 96.0, 101)


@pytest.mark.parametrize(
    ("milliseconds", "seconds", "runs"),
    [(1.0, 0.5, 505), (100.0, 0.5, MIN_RUNS), (0.001, 5.0, MAX_RUNS)],
    ids=["until the time is over", "at least a few", "no more than are of use"],
)
def test_measuring_takes_the_time_that_it_was_given(clock: FakeClock, milliseconds: float, seconds: float, runs: int) -> None:
    (latency,) = measure([Fake(clock, milliseconds)], seconds)
    assert latency.runs == pytest.approx(runs, abs=5)
    assert latency.p50 == pytest.approx(milliseconds, rel=0.01)


def test_two_models_are_measured_in_turn(clock: FakeClock) -> None:
    one, other = Fake(clock, 1.0), Fake(clock, 3.0)
    slow, fast = measure([other, one], 0.2)
    assert (slow.p50, fast.p50) == (3.0, 1.0)
    timed = clock.order[2 * WARM_UP :]
    assert [each is other for each in timed] == [turn % 10 < 5 for turn, _ in zip(count(), timed)]


def test_nothing_is_reported_to_the_maker_of_onnx_runtime(tmp_path: Path, doubling: bytes) -> None:
    """A fresh home stays empty: where ONNX Runtime's telemetry is on, it keeps its queue there."""
    program = (
        "import sys; from pathlib import Path; from reconvene_agent.core.protocol import Runtime;"
        "from reconvene_agent.worker.deploy.session import open_session;"
        "open_session(sys.stdin.buffer.read(), Runtime(1, 1, ('CPUExecutionProvider',), 1))"
    )
    # What marks a build server switches the telemetry off by itself; here it must be our doing.
    silencers = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY")
    kept = {name: value for name, value in os.environ.items() if name not in silencers and not name.startswith("XDG_")}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, input=doubling, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_threads_rest_between_inferences() -> None:
    """Otherwise two models that are timed in turn take each other's processors."""
    side = 512
    entry, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", side]) for name in ("image", "logits"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [side, side], np.ones(side * side, np.float32).tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["image", "w"], ["logits"])], "wide", [entry], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    found = open_session(model.SerializeToString(), Runtime(4, 1, CPU, 1))
    for _ in range(3):
        found.run(None, {"image": np.ones((64, side), np.float32)})
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1
