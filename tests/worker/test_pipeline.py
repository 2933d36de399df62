"""One run in this process, stopped and broken wherever that can happen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from onnx import ModelProto, numpy_helper

from reconvene_agent.core import release as releases
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.measuring import Measurement
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import Scoring, SpecializeRequest
from reconvene_agent.core.release import Latency
from reconvene_agent.worker import memory, pipeline
from reconvene_agent.worker.channel import StopRequested
from reconvene_agent.worker.planning import search
from reconvene_agent.worker.planning.findings import Finding
from support.disks import fill, tiny_disk
from support.models import ModelSpec, exporter, shipped
from support.pictures import class_folders, digits, encoded, noise
from support.runs import Ear, archive, plan_request, specialize_request

SPEC = ModelSpec("resnet20", (1, 8, 8), 10)
QUIET = Measurement(Latency(0.5, 0.6, 100))


@pytest.fixture(autouse=True, scope="module")
def soon() -> Iterator[None]:
    """Time less than a board would, and let all runs share one export, which is what they spend their time on."""
    resident = memory.resident_mb
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MEASURE_SECONDS", 0.01)
        patch.setattr(search.Planner, "_tried", lambda *_: Finding(QUIET, verified=True, memory_mb=4.0))
        patch.setattr(memory, "settled_mb", resident)
        patch.setattr(pipeline, "FINAL_MEASURE_SECONDS", 0.01)
        patch.setattr(pipeline, "Exporter", lambda *_: exporter(SPEC))
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(tmp_path_factory.mktemp("bundles") / "b", SPEC)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("data") / "digits.npz", 120)


@pytest.fixture
def request_(bundle: Path, data: Path, tmp_path: Path) -> SpecializeRequest:
    return specialize_request(bundle, data, tmp_path)


def run(request: SpecializeRequest, ear: Ear | None = None) -> dict[str, Any]:
    return json.loads(msgspec.json.encode(pipeline.specialize(request, ear or Ear())))


def stop_in(step: Step, at: float = 0.0) -> Ear:
    """Return an ear that suspends the run when it reports so much of a step."""

    def stop(reported: Step, fraction: float, _note: str) -> None:
        if reported is step and fraction >= at:
            raise StopRequested("suspend")

    return Ear(stop)


def test_a_run_goes_through_its_steps_and_ends_with_a_release(request_: SpecializeRequest, tmp_path: Path) -> None:
    ear = Ear()
    document = run(request_, ear)
    assert ear.steps == list(Step)
    assert [name for name, _ in ear.events] == ["plan", "prune", "settings", "epoch", "epoch", "release"]
    assert document["plan"]["chosen"]["sparsity"] == document["prune"]["sparsity"] == 0.9
    training, release = document["training"], document["release"]
    assert (training["epochs"], training["batch"]) == (2, 32)
    images = training["images"]
    assert (images["train"] + images["held_out"], images["skipped"]) == (120, {})
    assert training["images_per_second"] * training["seconds"] == pytest.approx(2 * images["train"], rel=0.4)
    assert training["peak_rss_mb"] > 0
    assert training["accuracy"] == ear.told("epoch")[-1]["accuracy"]
    current = releases.current(tmp_path / "models")
    assert current is not None
    assert Path(release["path"]) == (tmp_path / "models" / current.version)
    assert Path(release["onnx"]).stat().st_size == release["bytes"] == current.onnx_bytes
    assert release["sha256"] == current.onnx_sha256
    assert current.data is not None
    assert (current.data.files, current.data.bytes) == (1, Path(request_.data).stat().st_size)
    assert 0 <= document["parity_max_abs_diff"] < 1e-3
    assert not list((tmp_path / "models").glob(".*"))


@pytest.mark.parametrize(
    ("step", "at"),
    [
        (Step.PROBE, 0.0),
        (Step.PRUNE, 0.0),
        (Step.TRAIN, 0.3),
        (Step.TRAIN, 0.8),
        (Step.EVALUATE, 0.0),
        (Step.EXPORT, 0.7),
        (Step.PROMOTE, 0.0),
    ],
)
def test_a_run_suspended_in_any_step_goes_on_to_the_same_release(
    step: Step, at: float, whole: dict[str, Any], request_: SpecializeRequest, tmp_path: Path
) -> None:
    with pytest.raises(StopRequested):
        run(request_, stop_in(step, at))
    assert releases.current(tmp_path / "models") is None
    document = run(request_)
    assert document["release"]["sha256"] == whole["release"]["sha256"]
    assert document["training"]["accuracy"] == whole["training"]["accuracy"]
    assert document["prune"]["params"] == whole["prune"]["params"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing disturbs."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def whole(bundle: Path, data: Path, finished: Path) -> dict[str, Any]:
    """Return the document of a run that nothing disturbed."""
    return run(specialize_request(bundle, data, finished))


def test_a_run_scores_by_the_data_that_it_trains_on_and_goes_on_with_the_same_model(
    bundle: Path, data: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    plan = replace(plan_request(bundle), method=MethodOptions(criterion="snip"))
    with pytest.raises(StopRequested):
        run(specialize_request(bundle, data, tmp_path, plan), stop_in(Step.TRAIN, 0.8))
    # Less memory is available by now.
    again = replace(plan, scoring=Scoring(memory_mb=10_000.0))
    ear = Ear()
    document = run(specialize_request(bundle, data, tmp_path, again), ear)
    assert Step.PLAN not in ear.steps
    undisturbed = run(specialize_request(bundle, data, tmp_path / "undisturbed", plan))
    assert document["release"]["sha256"] == undisturbed["release"]["sha256"] != whole["release"]["sha256"]
    assert document["prune"]["params"] == undisturbed["prune"]["params"] != whole["prune"]["params"]


def test_a_resumed_run_keeps_its_plan_and_measures_no_more(request_: SpecializeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stop_in(Step.TRAIN, 0.5)
    with pytest.raises(StopRequested):
        run(request_, first)

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    for way in ("_quickly", "_verified"):
        monkeypatch.setattr(search.Planner, way, refuse)
    again = Ear()
    document = run(request_, again)
    assert Step.PLAN not in again.steps
    assert again.told("plan") == first.told("plan")
    assert document["plan"]["chosen"] == first.told("plan")[0]["chosen"]


def test_a_resumed_run_trains_only_what_is_left(request_: SpecializeRequest) -> None:
    with pytest.raises(StopRequested):
        run(request_, stop_in(Step.TRAIN, 0.8))
    ear = Ear()
    run(request_, ear)
    assert [epoch["epoch"] for epoch in ear.told("epoch")] == [2]


def test_a_finished_run_whose_report_was_lost_is_told_again_and_not_done_again(
    finished: Path, whole: dict[str, Any], request_: SpecializeRequest, tmp_path: Path
) -> None:
    shutil.copytree(finished / "work", tmp_path / "work")
    ear = Ear()
    assert run(request_, ear) == whole
    assert ear.steps == [Step.PROBE]
    assert ear.events == []


def other_seed(request: SpecializeRequest, _folder: Path) -> SpecializeRequest:
    return replace(request, training=replace(request.training, seed=9))


def other_method(request: SpecializeRequest, _folder: Path) -> SpecializeRequest:
    method = replace(request.plan.method, average="weighted")
    return replace(request, plan=replace(request.plan, method=method))


def other_data(request: SpecializeRequest, folder: Path) -> SpecializeRequest:
    return replace(request, data=str(archive(folder / "other.npz", 119)))


def other_bundle(request: SpecializeRequest, folder: Path) -> SpecializeRequest:
    return replace(request, plan=replace(request.plan, bundle=str(shipped(folder / "other", SPEC, seed=1))))


@pytest.mark.parametrize("change", [other_seed, other_method, other_data, other_bundle])
def test_nothing_of_another_run_is_gone_on_with(
    change: Callable[[SpecializeRequest, Path], SpecializeRequest],
    whole: dict[str, Any],
    finished: Path,
    request_: SpecializeRequest,
    tmp_path: Path,
) -> None:
    assert whole
    shutil.copytree(finished / "work", tmp_path / "work")
    ear = Ear()
    run(change(request_, tmp_path), ear)
    assert Step.PLAN in ear.steps
    assert len(ear.told("epoch")) == 2


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"fingerprint": "x"}'])
def test_what_cannot_be_remembered_is_done_again(content: bytes, request_: SpecializeRequest, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for name in ("plan.json", "outcome.json", "checkpoint.safetensors"):
        (tmp_path / "work" / name).write_bytes(content)
    ear = Ear()
    run(request_, ear)
    assert ear.steps == list(Step)


def test_infeasible_carries_the_plan_and_leaves_nothing_behind(bundle: Path, data: Path, tmp_path: Path) -> None:
    request = specialize_request(bundle, data, tmp_path, plan_request(bundle, None, model_mb=1e-6))
    with pytest.raises(AgentError, match=r"no candidate fits the budget: the nearest, sparsity 0\.9, has model_mb") as caught:
        run(request)
    assert caught.value.code is ErrorCode.INFEASIBLE
    plan = caught.value.result["plan"]
    assert plan["chosen"] is None
    assert len(plan["candidates"]) == 3
    assert plan["nearest_miss"]["sparsity"] == 0.9
    assert not list(tmp_path.iterdir())


def test_wrong_data_leave_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgentError) as caught:
        run(specialize_request(bundle, tmp_path / "empty", tmp_path))
    assert caught.value.code is ErrorCode.NO_DATA
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_imposed_sparsity_runs_although_it_misses_the_budget(bundle: Path, data: Path, tmp_path: Path) -> None:
    document = run(specialize_request(bundle, data, tmp_path, plan_request(bundle, 0.9, model_mb=1e-6)))
    assert document["plan"]["chosen"]["feasible"] is False
    assert document["plan"]["nearest_miss"]["limit"] == "model_mb"


def test_images_that_were_skipped_are_told_and_the_folders_names_become_labels(bundle: Path, tmp_path: Path) -> None:
    names = [f"class-{index}" for index in range(10)]
    folder = class_folders(tmp_path / "data", names, each=6)
    (folder / "class-3/broken.png").write_bytes(encoded(noise(1))[:-30])
    ear = Ear()
    document = run(specialize_request(bundle, folder, tmp_path, epochs=1), ear)
    warning = ear.told("warning")[0]
    assert warning["text"] == "skipped 1: 1 broken"
    assert warning["skipped"] == document["training"]["images"]["skipped"] == {"broken": 1}
    assert warning["examples"][0].startswith("class-3/broken.png: ")
    current = releases.current(tmp_path / "models")
    assert current is not None
    assert current.labels == tuple(names)


def test_a_third_of_the_images_may_be_corrupt(bundle: Path, tmp_path: Path) -> None:
    names = [f"class-{index}" for index in range(10)]
    folder = class_folders(tmp_path / "data", names, each=10)
    for path in folder.glob("*/00[0-2].png"):
        path.write_bytes(path.read_bytes()[:50])
    ear = Ear()
    images = run(specialize_request(bundle, folder, tmp_path, epochs=1), ear)["training"]["images"]
    assert images["train"] + images["held_out"] == 70
    assert images["skipped"] == ear.told("warning")[0]["skipped"] == {"broken": 30}


@pytest.mark.parametrize("when", ["for good", "before it goes on"])
def test_data_that_vanish_during_training_do_no_harm(bundle: Path, tmp_path: Path, when: str) -> None:
    names = [f"class-{index}" for index in range(10)]
    folder = class_folders(tmp_path / "data", names, each=8)
    undisturbed = run(specialize_request(bundle, folder, tmp_path / "one"))

    def vanish(step: Step, fraction: float, _note: str) -> None:
        if step is Step.TRAIN and fraction > 0.4:
            if folder.exists():
                shutil.rmtree(folder)
            if when == "before it goes on":
                raise StopRequested("suspend")

    request = specialize_request(bundle, folder, tmp_path / "other")
    if when == "for good":
        document = run(request, Ear(vanish))
    else:
        with pytest.raises(StopRequested):
            run(request, Ear(vanish))
        ear = Ear()
        document = run(request, ear)
        (warning,) = ear.told("warning")
        assert "does not exist" in warning["text"]
    assert not folder.exists()
    assert document["release"]["sha256"] == undisturbed["release"]["sha256"]


def test_a_batch_larger_than_the_data_is_told_as_it_was_used(bundle: Path, data: Path, tmp_path: Path) -> None:
    training = run(specialize_request(bundle, data, tmp_path, batch=4096, epochs=1))["training"]
    assert training["batch"] == training["images"]["train"]


def test_a_file_that_disagrees_with_torch_never_serves(
    request_: SpecializeRequest, bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_)
    before = releases.current(tmp_path / "models")
    real = exporter(SPEC).to_onnx

    def wrong(model: torch.nn.Module) -> ModelProto:
        proto = real(model)
        bias = next(each for each in proto.graph.initializer if each.name == "classifier.bias")
        bias.CopyFrom(numpy_helper.from_array(np.full(10, 0.5, dtype=np.float32), bias.name))
        return proto

    request = specialize_request(bundle, data, tmp_path, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(exporter(SPEC), "to_onnx", wrong)
        with pytest.raises(AgentError) as caught:
            run(request)
    assert caught.value.code is ErrorCode.EXPORT_MISMATCH
    assert releases.current(tmp_path / "models") == before
    assert not list((tmp_path / "models").glob(".*"))
    run(request)
    assert releases.current(tmp_path / "models") != before


def test_a_disk_that_fills_up_keeps_the_current_release_and_the_run_goes_on_later(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    def fill_up(step: Step, _fraction: float, _note: str) -> None:
        if step is Step.EXPORT and not (tmp_path / "disk/ballast").exists():
            fill(tmp_path / "disk", leave=16_384)

    with tiny_disk(tmp_path / "disk", "4m") as disk:
        run(specialize_request(bundle, data, disk))
        before = releases.current(disk / "models")
        request = specialize_request(bundle, data, disk, seed=1)
        with pytest.raises(AgentError) as caught:
            run(request, Ear(fill_up))
        assert caught.value.code is ErrorCode.NO_DISK
        assert releases.current(disk / "models") == before
        (disk / "ballast").unlink()
        ear = Ear()
        run(request, ear)
        assert ear.told("epoch") == []
        assert releases.current(disk / "models") != before


def test_two_training_images_are_enough_to_train(bundle: Path, tmp_path: Path) -> None:
    x, y = digits(4)
    np.savez(tmp_path / "few.npz", x=x[:2], y=y[:2], x_val=x[2:], y_val=y[2:])
    document = run(specialize_request(bundle, tmp_path / "few.npz", tmp_path, epochs=1))
    assert document["training"]["images"] == {"train": 2, "held_out": 2, "skipped": {}}
