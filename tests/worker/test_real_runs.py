"""Whole runs in real worker processes on real images: to the end, stopped in the middle, and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from reconvene_agent.core import release as releases
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Done, Failed, Happening, Ready, Suspended
from reconvene_agent.worker import pipeline
from support.models import ModelSpec, shipped
from support.runs import Ear, Watched, archive, plan_request, specialize_request

pytestmark = pytest.mark.slow

SPEC = ModelSpec("resnet20", (1, 8, 8), 10)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(tmp_path_factory.mktemp("bundles") / "b", SPEC)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("data") / "digits.npz", 300)


def test_a_job_canceled_suspended_and_killed_in_training_still_ends_with_the_release_of_an_undisturbed_one(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    request = specialize_request(bundle, data, tmp_path, epochs=10)

    def begun() -> Watched:
        """Start or go on with the job, and wait until it has trained for an epoch."""
        worker = Watched(request)
        worker.until(lambda message: isinstance(message, Happening) and message.name == "epoch")
        return worker

    canceled = begun()
    canceled.process.ask_to_stop("cancel")
    outcome = canceled.outcome
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.CANCELED
    assert canceled.end().returncode == 0

    suspended = begun()
    suspended.process.ask_to_stop("suspend")
    assert suspended.outcome == Suspended()
    assert suspended.end().returncode == 0

    killed = begun()
    killed.process.kill()
    assert killed.end().returncode == -9
    assert releases.current(tmp_path / "models") is None

    last = Watched(request)
    done = last.outcome
    assert isinstance(done, Done)
    assert last.steps == [step for step in Step if step is not Step.PLAN]
    assert canceled.told("plan") == suspended.told("plan") == killed.told("plan") == last.told("plan")
    numbers = [each["epoch"] for worker in (canceled, suspended, killed, last) for each in worker.told("epoch")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 10
    assert last.told("epoch")[0]["epoch"] > 2

    whole = pipeline.specialize(specialize_request(bundle, data, tmp_path / "whole", epochs=10), Ear())
    assert done.result["release"]["sha256"] == whole["release"]["sha256"]
    assert done.result["training"]["accuracy"] == whole["training"]["accuracy"]

    again = Watched(request)
    assert again.outcome == done
    assert again.told("epoch") == []


def test_where_memory_is_scarce_training_has_none_of_what_the_plan_took(bundle: Path, data: Path, tmp_path: Path) -> None:
    plan = plan_request(bundle)
    scarce = replace(plan, scoring=replace(plan.scoring, memory_mb=500.0))
    ample, spared = (
        Watched(specialize_request(bundle, data, tmp_path / name, asked)) for name, asked in (("a", plan), ("b", scarce))
    )
    (greeting,) = (each for each in spared.said if isinstance(each, Ready)) if spared.outcome else ()
    assert greeting.pid == spared.process.pid
    results = [each.outcome.result for each in (ample, spared) if isinstance(each.outcome, Done)]
    assert results[0]["release"]["sha256"] == results[1]["release"]["sha256"]
    assert results[1]["training"]["peak_rss_mb"] < results[0]["training"]["peak_rss_mb"] - 60
    assert spared.steps == [Step.PROBE, Step.PLAN, *list(Step)[:1], *list(Step)[2:]]


def test_infeasible_comes_with_the_plan(bundle: Path, data: Path, tmp_path: Path) -> None:
    plan = plan_request(bundle, None, training_memory_mb=0.5)
    outcome = Watched(specialize_request(bundle, data, tmp_path, plan)).outcome
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.INFEASIBLE
    assert outcome.result is not None
    assert [candidate["feasible"] for candidate in outcome.result["plan"]["candidates"]] == [False] * 3
    assert outcome.result["plan"]["nearest_miss"]["limit"] == "training_memory_mb"
    assert not list(tmp_path.iterdir())
