from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent import __version__
from reconvene_agent.cli.doctor import configuration, service
from reconvene_agent.cli.doctor.account import acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.daemon.service import control
from reconvene_agent.daemon.service.control import ask
from support.brokers import free_port
from support.daemons import Daemon
from support.doctoring import NOBODY, case, codes, told
from support.planting import Plant


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Return an agent that runs and has no broker to reach."""
    made = Daemon(tmp_path_factory.mktemp("daemon"))
    long_ago = time.time() - 3600
    os.utime(made.config, (long_ago, long_ago))
    with made:
        yield made


def of(daemon: Daemon) -> Case:
    made = Case(daemon.config)
    assert codes(configuration.check(made)) == [configuration.GOOD.code]
    return made


def test_an_agent_that_runs(daemon: Daemon) -> None:
    made = of(daemon)
    found = list(service.check(made))
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert told(found, service.GOOD).found == f"the agent runs as process {daemon.pid} of {me}, version {__version__}, state idle"
    assert codes(found) == [service.GOOD.code]
    assert made.pid == daemon.pid
    assert made.service.uid == os.geteuid()


def test_an_old_version_that_still_runs(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "__version__", "99.0")
    found = told(service.check(of(daemon)), service.OUTDATED)
    assert found.found == f"version {__version__} runs, but 99.0 is installed"


def test_a_configuration_that_the_agent_has_not_read(daemon: Daemon) -> None:
    before = daemon.config.stat().st_mtime
    later = time.time() + 10
    os.utime(daemon.config, (later, later))
    found = told(service.check(of(daemon)), service.UNREAD)
    os.utime(daemon.config, (before, before))
    assert found.found == f"{daemon.config} was changed after the agent had read it"


@pytest.mark.usefixtures("as_root")
def test_an_agent_that_one_may_not_ask(daemon: Daemon) -> None:
    made = of(daemon)
    with acting_as(NOBODY):
        found = list(service.check(made))
    assert "sudo usermod -aG reconvene-agent $USER" in told(found, service.FORBIDDEN).advice


def test_an_agent_whose_work_is_paused(daemon: Daemon) -> None:
    ask(daemon.socket, "pause")
    found = told(service.check(of(daemon)), service.PAUSED)
    ask(daemon.socket, "resume")
    assert found.found.startswith("work waits: ")
    assert service.PAUSED.code not in codes(service.check(of(daemon)))


def test_what_the_agent_complains_of(tmp_path: Path) -> None:
    port = free_port()
    with Daemon(tmp_path, f"mqtt://127.0.0.1:{port}") as complaining:
        found = list(service.check(of(complaining)))
    assert told(found, service.COMPLAINS).found.startswith("the agent says: no broker: ")


def test_an_agent_that_does_not_run(tmp_path: Path, plant: Plant) -> None:
    made = case(tmp_path)
    made.root = plant({"x": ""})
    assert told(service.check(made), service.STOPPED).found.endswith(f"nobody answers at {tmp_path}/state/control.sock")
    assert made.pid is None


@pytest.mark.usefixtures("as_root")
def test_whose_rights_count_where_none_runs(everybodys: Path) -> None:
    made = case(everybodys)
    os.chown(everybodys / "state", NOBODY.uid, NOBODY.gid)
    list(service.check(made))
    assert made.service.uid == NOBODY.uid


def test_an_agent_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT_S", 0.1)
    made = case(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "state/control.sock"))
        listener.listen(1)
        assert "does not answer within 0.1 s" in told(service.check(made), service.SILENT).found


# What systemctl prints of a unit that could not be kept running, and while it waits to start it again.
@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("ActiveState=failed SubState=failed Result=start-limit-hit NRestarts=10", "start-limit-hit, started again 10"),
        ("ActiveState=activating SubState=auto-restart Result=exit-code NRestarts=3", "exit-code, started again 3"),
    ],
)
def test_an_agent_that_systemd_cannot_keep_running(
    tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch, words: str, text: str
) -> None:
    made = case(tmp_path)
    made.root = plant({"run/systemd/system/x": ""})
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'show reconvene-agent.service' ] || exit 1\nprintf '%s\\n' {words}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert text in told(service.check(made), service.FAILED).found


def test_a_systemctl_that_hangs_or_fails_is_done_without(tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    made = case(tmp_path)
    made.root = plant({"run/systemd/system/x": ""})
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(service, "SYSTEMCTL_S", 0.1)
    told(service.check(made), service.STOPPED)
