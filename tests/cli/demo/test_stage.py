"""The demo's folder and its agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from reconvene_agent.cli.demo.stage import SPEC, AgentProcess, Stage
from reconvene_agent.core import bundle, config
from reconvene_agent.core.errors import AgentError
from reconvene_agent.daemon.service.control import ask_status
from support.brokers import free_port
from support.waiting import until


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    built = Stage(tmp_path / "demo")
    built.build(f"mqtt://127.0.0.1:{free_port()}")
    return built


@pytest.fixture
def agent(stage: Stage) -> Iterator[AgentProcess]:
    with AgentProcess(stage) as started:
        yield started


def test_the_folder_holds_all_that_an_agent_needs(stage: Stage) -> None:
    manifest = bundle.verify(stage.bundle)
    assert (manifest.model, manifest.labels) == (SPEC, tuple("0123456789"))
    with np.load(stage.data) as archive:
        assert archive["x"].shape == (1797, 8, 8)
        assert archive["y"].shape == (1797,)
    assert sorted(path.name for path in stage.data.parent.iterdir()) == ["3.png", "7.png", "LICENSE.md", "digits.npz"]
    settings = config.load(stage.config)
    assert settings.state_dir == stage.state
    assert settings.bundles_dir == stage.bundle.parent
    assert settings.data_dir == stage.data.parent
    assert settings.models_dir == stage.models
    assert settings.broker.protocol == "3.1.1"


def test_the_agent_is_the_real_one_and_small(stage: Stage, agent: AgentProcess) -> None:
    until((stage.state / "control.sock").exists, 20)
    assert ask_status(stage.state / "control.sock")["device_id"] == "demo-board"
    assert 5 < agent.resident_mb() < 60
    agent.check()


def test_the_agent_is_stopped_in_order_in_the_end(stage: Stage) -> None:
    with AgentProcess(stage) as agent:
        until((stage.state / "control.sock").exists, 20)
    assert not psutil.pid_exists(agent.pid)
    assert not (stage.state / "control.sock").exists()


def last_words(agent: AgentProcess) -> str:
    """Return what is told of an agent that is gone; nothing while it lives."""
    try:
        agent.check()
    except AgentError as error:
        return error.message
    return ""


def test_an_agent_that_is_gone_is_told_with_its_last_words(stage: Stage) -> None:
    stage.config.write_text("[agents]")
    with AgentProcess(stage) as agent:
        told = until(lambda: last_words(agent), 20)
    line = f"reconvene-agent: error: {stage.config}: agents: there is no such section; is it agent?"
    assert told == f"the agent left with exit code 2: {line}"
