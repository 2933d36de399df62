"""``run``: becomes the daemon, in the same process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from reconvene_agent.core.errors import AgentError
from reconvene_agent.daemon.service.control import ask_status
from support.commandline import Running, command, configured
from support.waiting import until


def idle(socket: Path) -> bool:
    """Whether an agent answers that it is idle."""
    try:
        return bool(ask_status(socket)["state"] == "idle")
    except AgentError:
        return False


@pytest.mark.parametrize("named_by", ["option", "environment"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_agent_runs_until_it_is_told_to_stop(named_by: str, number: signal.Signals, tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"device_id": "mine", "state_dir": str(tmp_path / "state")})
    words = ("run", "--config", config) if named_by == "option" else ("run",)
    with Running(*words, RECONVENE_AGENT_CONFIG=str(config)) as running:
        until(lambda: idle(tmp_path / "state/control.sock"), 20)
        process = psutil.Process(running.process.pid)
        assert process.cmdline() == [sys.executable, "-m", "reconvene_agent.daemon", str(config)]
        assert [each.pid for each in running.family()] == [process.pid]
        running.signal(number)
        ended = running.end()
    assert (ended.code, ended.out) == (0, "")
    assert "mine" in ended.err


def test_a_second_agent_on_the_same_state_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"state_dir": str(tmp_path / "state")})
    with Running("run", "--config", config) as running:
        until(lambda: idle(tmp_path / "state/control.sock"), 20)
        second = command("run", "--config", config)
        assert second.code not in (0, 130)
        assert str(tmp_path / "state") in second.complaint
        running.signal(signal.SIGTERM)
        assert running.end().code == 0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        ("[broker", "cannot be read: "),
        ("[broker]\nurl = 'http://x'", "broker.url: must look like mqtt://host:1883 or mqtts://host:8883"),
    ],
)
def test_a_wrong_configuration_is_one_line(content: str | None, complaint: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    if content is not None:
        config.write_text(content)
    ended = command("run", "--config", config)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith(f"{config}: {complaint}")


def test_a_state_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"state_dir": f"{os.devnull}/state"})
    ended = command("run", "--config", config)
    assert ended.code == 1
    assert f"{os.devnull}/state" in ended.complaint
