from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.core import bundle
from reconvene_agent.core.config import AgentSection, BrokerSection, Config, SpecializeSection
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command
from reconvene_agent.core.protocol import PlanRequest, SpecializeRequest
from reconvene_agent.core.requests import memory_limits
from reconvene_agent.daemon.worker import launch
from support.agents import WALL
from support.values import device, manifest, profile


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the configuration of an agent that has one bundle and one set of data, both called ``ours``."""
    for name in ("bundles/ours", "data/ours"):
        (tmp_path / name).mkdir(parents=True)
    bundle.write_manifest(tmp_path / "bundles/ours", manifest())
    return Config(agent=AgentSection(state_dir=str(tmp_path)), broker=BrokerSection())


def request(config: Config, op: str = "specialize", **args: Any) -> Any:
    return launch.request_for(Command(op, "1", {"args": args}, "", WALL, WALL), config, profile())[0]


def refused(config: Config, **args: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        request(config, **args)
    assert "\n" not in caught.value.message
    return caught.value


def test_names_become_paths_in_the_agents_own_folders(config: Config, tmp_path: Path) -> None:
    made = request(config, bundle="ours", data="ours", sparsity=0.5)
    assert isinstance(made, SpecializeRequest)
    assert (made.plan.bundle, made.data) == (str(tmp_path / "bundles/ours"), str(tmp_path / "data/ours"))
    assert made.models == str(tmp_path / "models")
    assert Path(made.work).parent == tmp_path / "jobs"
    assert made.plan.sparsity == 0.5


def test_a_plan_needs_no_data(config: Config) -> None:
    made = request(config, "plan", bundle="ours")
    assert isinstance(made, PlanRequest)
    assert made.scoring.data is None


def test_a_plan_may_score_by_data_in_the_agents_own_folder(config: Config, tmp_path: Path) -> None:
    assert request(config, "plan", bundle="ours", data="ours").scoring.data == str(tmp_path / "data/ours")
    configured = SpecializeSection(bundle="ours", data=str(tmp_path / "elsewhere"))
    made = request(Config(agent=config.agent, specialize=configured), "plan", bundle="ours")
    assert made.scoring.data == str(tmp_path / "elsewhere")


def test_a_plan_takes_no_data_from_outside(config: Config) -> None:
    with pytest.raises(AgentError, match="must be a name inside") as caught:
        request(config, "plan", bundle="ours", data="../bundles/ours")
    assert caught.value.code is ErrorCode.SCHEMA


def test_a_run_scores_by_the_data_that_it_trains_on(config: Config) -> None:
    made = request(config, bundle="ours", data="ours", method={"criterion": "grasp"})
    assert (made.plan.method.criterion, made.plan.scoring.data) == ("grasp", made.data)


def test_what_the_configuration_names_may_lie_anywhere(config: Config, tmp_path: Path) -> None:
    anywhere = tmp_path / "elsewhere"
    (tmp_path / "bundles/ours").rename(anywhere)
    trusted = Config(agent=config.agent, specialize=SpecializeSection(bundle=str(anywhere), data=str(tmp_path / "data")))
    assert request(trusted).plan.bundle == str(anywhere)


OUTSIDE = ["/etc", "..", "../data/ours", "ours/../../data", "a\0b", "\0"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_bundle_outside_is_refused(config: Config, name: str) -> None:
    error = refused(config, bundle=name, data="ours")
    assert error.code is ErrorCode.SCHEMA
    assert "must be a name inside" in error.message


@pytest.mark.parametrize("name", OUTSIDE)
def test_data_outside_are_refused(config: Config, name: str) -> None:
    error = refused(config, bundle="ours", data=name)
    assert error.code is ErrorCode.SCHEMA
    assert "must be a name inside" in error.message


MISSING = ["missing", "ours/bundle.toml/x", "x" * 255, "é" * 255]


@pytest.mark.parametrize("name", MISSING)
def test_a_bundle_that_is_not_there(config: Config, name: str) -> None:
    assert refused(config, bundle=name, data="ours").code is ErrorCode.BAD_BUNDLE


@pytest.mark.parametrize("name", MISSING)
def test_data_that_are_not_there(config: Config, name: str) -> None:
    assert refused(config, bundle="ours", data=name).code is ErrorCode.NO_DATA


def test_a_broken_bundle_is_refused_before_a_worker_starts(config: Config, tmp_path: Path) -> None:
    (tmp_path / "bundles/ours/bundle.toml").write_bytes(b"\xff")
    assert refused(config, bundle="ours", data="ours").code is ErrorCode.BAD_BUNDLE


def test_nothing_named_is_told_what_to_name(config: Config) -> None:
    assert "name a bundle in the command" in refused(config).message
    assert "name the data in the command" in refused(config, bundle="ours").message


def test_a_disk_almost_full_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "probe_device", lambda _: device(free_mb=launch.MIN_FREE_MB - 0.1))
    error = refused(config, bundle="ours", data="ours")
    assert error.code is ErrorCode.NO_DISK
    monkeypatch.setattr(launch, "probe_device", lambda _: device(free_mb=launch.MIN_FREE_MB))
    assert request(config, bundle="ours", data="ours")


def test_threads_are_those_of_training(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "probe_device", lambda _: device(cores=4))
    command = Command("plan", "1", {"args": {"bundle": "ours"}}, "", WALL, WALL)
    assert launch.request_for(command, config, profile(inference_threads=1, training_threads=3))[1] == 3


def test_what_was_killed_for_want_of_memory_is_planned_afresh_within_less(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "probe_device", lambda _: device(available_mb=1000.0))
    args = {"bundle": "ours", "data": "ours", "budget": {"training_memory_mb": 400}}
    command = Command("specialize", "1", {"args": args}, "", WALL, WALL)
    first = launch.request_for(command, config, profile())[0]
    limits = memory_limits(first)
    assert limits == {"training_memory_mb": 400.0}
    again = launch.request_for(msgspec.structs.replace(command, ceilings_mb={"training_memory_mb": 280.0}), config, profile())[0]
    assert isinstance(first, SpecializeRequest)
    assert isinstance(again, SpecializeRequest)
    assert again.plan.budget.training_memory_mb is not None
    assert again.plan.budget.training_memory_mb.value == again.plan.scoring.memory_mb == 280.0
    assert memory_limits(again) == {"training_memory_mb": 280.0}
    assert again.work != first.work
    assert launch.work_folder(config, command.key) in Path(again.work).parents, "and is removed with the rest"


def test_without_a_limit_what_is_available_was_the_limit(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "probe_device", lambda _: device(available_mb=900.0))
    assert memory_limits(request(config, "plan", bundle="ours")) == {"training_memory_mb": 900.0}
    limited = request(config, "plan", bundle="ours", budget={"memory_mb": 20})
    assert memory_limits(limited) == {"memory_mb": 20.0, "training_memory_mb": 900.0}
