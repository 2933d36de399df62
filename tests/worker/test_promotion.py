"""What becomes of a run whose model has, or has not, earned its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from reconvene_agent.core import release as releases
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.options import ReleaseOptions
from reconvene_agent.core.protocol import SpecializeRequest
from reconvene_agent.core.release import Latency
from reconvene_agent.core.shelf import Shelf
from reconvene_agent.worker import memory, pipeline, promotion
from reconvene_agent.worker.channel import StopRequested
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.deploy.session import open_session
from reconvene_agent.worker.planning import search
from support.models import RUNTIME, ModelSpec, exporter, shipped
from support.pictures import digits
from support.runs import Ear, plan_request, specialize_request
from support.shelves import serving, tear

SPEC = ModelSpec("mlp", (64,), 10)
HOPELESS = 1e-6


@pytest.fixture(autouse=True, scope="module")
def soon() -> Iterator[None]:
    """Time less than a board would, and let all runs share one export."""
    resident = memory.resident_mb
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MEASURE_SECONDS", 0.01)
        patch.setattr(memory, "settled_mb", resident)
        patch.setattr(pipeline, "COMPARE_SECONDS", 0.01)
        patch.setattr(pipeline, "FINAL_MEASURE_SECONDS", 0.01)
        patch.setattr(pipeline, "Exporter", lambda *_: exporter(SPEC))
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(tmp_path_factory.mktemp("bundles") / "b", SPEC)


def rows(path: Path, first: int, last: int, turn: int = 0) -> Path:
    """Write some of the shipped digits as rows of pixels, the classes of the held-out ones turned by so many."""
    x, y = (part[first:last] for part in digits())
    x = x.reshape(len(x), -1).astype(np.float32)
    held = len(x) // 4
    np.savez(path, x=x[held:], y=y[held:], x_val=x[:held], y_val=(y[:held] + turn) % 10)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data") / "digits.npz", 0, 800)


@pytest.fixture
def good(bundle: Path, data: Path, tmp_path: Path) -> str:
    """Return the version of a good model that serves."""
    pipeline.specialize(specialize_request(bundle, data, tmp_path, epochs=5), Ear())
    return serving(tmp_path / "models")


def hopeless(bundle: Path, data: Path, root: Path, seed: int = 1) -> SpecializeRequest:
    """Return the request for a run that learns nothing."""
    request = specialize_request(bundle, data, root, epochs=1, learning_rate=HOPELESS, seed=seed)
    return replace(request, release=ReleaseOptions())


def refused(request: SpecializeRequest, ear: Ear | None = None) -> AgentError:
    with pytest.raises(AgentError) as caught:
        pipeline.specialize(request, ear or Ear())
    assert caught.value.code is ErrorCode.VERIFY_FAILED
    assert caught.value.exit_code == 8
    assert caught.value.result is not None
    return caught.value


def test_a_worse_model_does_not_serve_and_is_told_by_how_much(bundle: Path, data: Path, tmp_path: Path, good: str) -> None:
    ear, models = Ear(), tmp_path / "models"
    error = refused(hopeless(bundle, data, tmp_path), ear)
    assert serving(models) == good
    assert error.message.startswith(f"the new release has not earned its place, {good} goes on serving: it recognises ")
    assert f" of {good}, which serves now; 2 are allowed" in error.message
    gate, release = error.result["gate"], error.result["release"]
    assert gate["current"]["version"] == good
    assert gate["current"]["accuracy"] > gate["accuracy"] + 0.2
    assert len(gate["refused"]) == 2
    assert "which is guessing among 10 classes" in gate["refused"][0]
    assert gate["signature"]["name"] == "accuracy_collapse"
    assert gate["signature"]["text"] in error.message
    kept = releases.read(models / release["version"])
    assert kept.refused == tuple(gate["refused"])
    assert f"'reconvene-agent models promote {kept.version} --models {models}'" in error.message
    (told,) = ear.told("refused")
    assert told["version"] == kept.version
    assert ear.told("release") == []
    assert not list(models.glob(".*"))


def test_a_refused_model_can_be_promoted_by_hand_and_the_newest_of_them_is_kept(
    bundle: Path, data: Path, tmp_path: Path, good: str
) -> None:
    models = tmp_path / "models"
    refused(hopeless(bundle, data, tmp_path))
    last = refused(hopeless(bundle, data, tmp_path, seed=2)).result["release"]["version"]
    assert releases.versions(models) == [good, last]
    assert Shelf(models).promote(last).before == good


def test_a_run_that_was_refused_is_judged_again_without_training_again(
    bundle: Path, data: Path, tmp_path: Path, good: str
) -> None:
    request = hopeless(bundle, data, tmp_path)
    refused(request)
    ear = Ear()
    document = refused(request, ear).result
    assert ear.told("epoch") == []
    assert document["release"]["version"] != good


def test_what_serves_is_judged_on_the_inputs_of_today(bundle: Path, data: Path, tmp_path: Path, good: str) -> None:
    # The world has turned: what was a 3 is a 4 now, and what serves is wrong about it.
    today = rows(tmp_path / "today.npz", 0, 800, turn=1)
    request = replace(specialize_request(bundle, today, tmp_path, epochs=1, seed=3), release=ReleaseOptions(margin=0.0))
    error = refused(request)
    current = releases.read(tmp_path / "models" / good)
    assert current.accuracy is not None
    assert current.accuracy > 0.8
    assert error.result["gate"]["current"]["accuracy"] < 0.1, "and not what its manifest says"


def test_a_broken_current_release_is_nothing_to_be_worse_than(bundle: Path, data: Path, tmp_path: Path, good: str) -> None:
    tear(tmp_path / "models", good)
    document = pipeline.specialize(
        replace(specialize_request(bundle, data, tmp_path, epochs=2, seed=1), release=ReleaseOptions(margin=0.0)), Ear()
    )
    current = document["gate"]["current"]
    assert (current["version"], current["accuracy"]) == (good, None)
    assert "has 4 bytes" in current["why_not"]
    assert serving(tmp_path / "models") == document["release"]["version"] != good


def test_models_of_other_inputs_are_not_held_against_each_other(data: Path, tmp_path: Path, good: str) -> None:
    other = ModelSpec("mlp", (32,), 10)
    path = tmp_path / "halves.npz"
    with np.load(data) as archive:
        np.savez(path, **{name: archive[name][:, ::2] if name.startswith("x") else archive[name] for name in archive})
    request = specialize_request(shipped(tmp_path / "other", other), path, tmp_path, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Exporter", lambda *_: exporter(other))
        document = pipeline.specialize(replace(request, release=ReleaseOptions(margin=0.0)), Ear())
    assert document["gate"]["current"]["why_not"] == "it takes inputs of 64, not 32"


# --- latency -----------------------------------------------------------------------------------------------------------------


def slow_for(times: int) -> Callable[..., list[Latency]]:
    """Return a stopwatch that finds models slow so many times."""
    left = times

    def measure(sessions: Sequence[object], _seconds: float) -> list[Latency]:
        nonlocal left
        left -= 1
        return [Latency(70.0, 80.0, 30) if left >= 0 else Latency(0.1, 0.2, 30) for _ in sessions]

    return measure


def test_a_slow_file_does_not_serve(bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "measure", slow_for(2))
    error = refused(specialize_request(bundle, data, tmp_path, plan_request(bundle, None, latency_ms=50.0)))
    assert error.message.startswith(
        "the new release has not earned its place, nothing serves: latency_ms is 80 where 50 is allowed (test); "
    )
    assert error.result["gate"]["signature"] is None
    assert releases.current(tmp_path / "models") is None
    assert Shelf(tmp_path / "models").check() is None, "and the agent lets it lie"


def test_before_it_is_called_slow_it_is_measured_again(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "measure", slow_for(1))
    request = specialize_request(bundle, data, tmp_path, plan_request(bundle, None, latency_ms=50.0))
    assert pipeline.specialize(request, Ear())["release"]["latency_ms"]["p95"] == 0.2


def test_who_imposes_a_model_that_is_too_slow_gets_it(bundle: Path, data: Path, tmp_path: Path) -> None:
    document = pipeline.specialize(specialize_request(bundle, data, tmp_path, plan_request(bundle, 0.9, latency_ms=1e-6)), Ear())
    assert document["plan"]["nearest_miss"]["limit"] == "latency_ms"
    assert document["gate"]["refused"] == []


# --- no speed-up -------------------------------------------------------------------------------------------------------------


def test_a_missing_speed_up_is_told_before_training_starts(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconvene_agent.worker.planning.speedup.measure", lambda *_: [Latency(2.0, 3.0, 30)] * 2)
    ear = Ear()
    document = pipeline.specialize(specialize_request(bundle, data, tmp_path), ear)
    names = [name for name, _ in ear.events]
    assert names.index("warning") < names.index("prune") < names.index("epoch")
    (warning,) = [each for each in ear.told("warning") if each.get("name") == "no_speedup"]
    assert warning["text"].startswith("pruning makes this model no faster here: p50 2 ms against 2 ms dense (1.00×); ")
    assert document["prune"]["speedup"]["ratio"] == 1.0


def test_a_dense_model_that_does_not_fit_into_memory_is_not_measured(bundle: Path, data: Path, tmp_path: Path) -> None:
    request = specialize_request(bundle, data, tmp_path)
    plan = replace(request.plan, scoring=replace(request.plan.scoring, memory_mb=1.0))
    speedup = pipeline.specialize(replace(request, plan=plan), Ear())["prune"]["speedup"]
    assert (speedup["dense"], speedup["ratio"]) == (None, None)
    assert speedup["why_not"] == "the dense model takes 3 MiB to be measured, 1 are available"


def test_where_nothing_is_pruned_nothing_can_be_faster(bundle: Path, data: Path, tmp_path: Path) -> None:
    document = pipeline.specialize(specialize_request(bundle, data, tmp_path, plan_request(bundle, 0.0)), Ear())
    assert document["prune"]["speedup"]["why_not"] == "nothing is pruned"


# --- int8 --------------------------------------------------------------------------------------------------------------------


def asking_for_int8(bundle: Path, data: Path, root: Path) -> SpecializeRequest:
    return replace(specialize_request(bundle, data, root, epochs=5), release=ReleaseOptions(quantize="auto"))


def speeds(float32: float, of_int8: float) -> Callable[..., list[Latency]]:
    """Return a stopwatch that finds these medians where two are timed in turn."""

    def measure(sessions: Sequence[object], _seconds: float) -> list[Latency]:
        return [Latency(p50, 2 * p50, 30) for p50 in (float32, of_int8)][: len(sessions)]

    return measure


def test_int8_is_deployed_where_it_is_faster_and_as_accurate(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "measure", speeds(2.0, 1.0))
    document = pipeline.specialize(asking_for_int8(bundle, data, tmp_path), Ear())
    weighed, current = document["int8"], releases.current(tmp_path / "models")
    assert current is not None
    assert (weighed["deployed"], weighed["why_not"]) == (True, "")
    assert current.precision == document["release"]["precision"] == "int8"
    assert weighed["accuracy"]["int8"] > weighed["accuracy"]["float32"] - 0.01 > 0.7
    assert current.accuracy == pytest.approx(weighed["accuracy"]["int8"], abs=1e-4)
    assert current.onnx_bytes == weighed["bytes"]["int8"] < 0.6 * weighed["bytes"]["float32"]
    folder = tmp_path / "models" / current.version
    assert releases.flaw(folder) == ""
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "release.json"]
    notes = open_session(folder / "model.onnx", RUNTIME).get_modelmeta().custom_metadata_map
    assert (notes["precision"], notes["input_size"]) == ("int8", "64")


def test_float32_is_deployed_where_int8_is_not_faster(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "measure", speeds(1.0, 1.0))
    document = pipeline.specialize(asking_for_int8(bundle, data, tmp_path), Ear())
    assert document["int8"]["why_not"] == "int8 is not faster here: p50 1 ms, p95 2 ms against 1 ms, 2 ms"
    assert document["release"]["precision"] == "float32"
    assert document["release"]["bytes"] == document["int8"]["bytes"]["float32"]


def test_float32_is_deployed_where_int8_loses_accuracy(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "measure", speeds(2.0, 1.0))
    # Calibrated on inputs that are all alike, it knows nothing of the real ranges.
    monkeypatch.setattr(Dataset, "sample", lambda self, count, _: (self.normalized(0 * self.train.inputs[:count]) * 1e-3, None))
    document = pipeline.specialize(asking_for_int8(bundle, data, tmp_path), Ear())
    assert re.fullmatch(r"int8 loses [0-9.]+ points of accuracy, 1 are allowed", document["int8"]["why_not"])
    assert document["release"]["precision"] == "float32"


def test_what_cannot_be_quantised_is_deployed_as_it_is(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "sample", lambda *_: (np.zeros((4, 7), dtype=np.float32), None))
    document = pipeline.specialize(asking_for_int8(bundle, data, tmp_path), Ear())
    assert document["int8"]["deployed"] is False
    assert document["int8"]["why_not"].startswith("ONNX Runtime cannot quantise it: ")
    assert document["release"]["precision"] == "float32"


def test_a_run_is_stopped_while_it_quantises(bundle: Path, data: Path, tmp_path: Path) -> None:
    def stop(_step: Step, _fraction: float, note: str) -> None:
        if note == "calibrating":
            raise StopRequested("suspend")

    with pytest.raises(StopRequested):
        pipeline.specialize(asking_for_int8(bundle, data, tmp_path), Ear(stop))
    assert not list((tmp_path / "models").iterdir())


def test_nobody_asks_for_int8_by_default(bundle: Path, data: Path, tmp_path: Path) -> None:
    assert pipeline.specialize(specialize_request(bundle, data, tmp_path), Ear())["int8"] is None
