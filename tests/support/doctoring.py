"""What the tests of ``doctor`` share: cases, findings picked out and looked at, folders that everybody can reach."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from reconvene_agent.cli.doctor import configuration
from reconvene_agent.cli.doctor.account import Account
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, Kind, Verdict
from support.brokers import Handler

NOBODY = Account(65534, 65534, ())


def told(findings: Iterable[Finding], kind: Kind) -> Finding:
    """Return the one finding of a kind; it says in one line each what was found and, where that is not well, what to do."""
    found = list(findings)
    (one,) = (each for each in found if each.code == kind.code) if kind.code in {each.code for each in found} else [None]
    assert one is not None, f"no {kind.code} among {found}"
    assert one.verdict is kind.verdict
    for line in (one.found, one.advice):
        assert "\n" not in line
        assert "{" not in line
    assert bool(one.advice) is (one.verdict is not Verdict.OK)
    return one


def codes(findings: Iterable[Finding]) -> list[str]:
    return [each.code for each in findings]


def case(folder: Path, **sections: dict[str, Any]) -> Case:
    """Return a case whose configuration, with its state in ``folder``, has been read and is right."""
    file = folder / "config.toml"
    agent = {"state_dir": str(folder / "state"), "device_id": "board-1"} | sections.pop("agent", {})
    (folder / "state").mkdir(exist_ok=True)
    file.write_text(tomli_w.dumps({"agent": agent, **sections}))
    made = Case(file)
    found = list(configuration.check(made))
    assert made.config is not None, found
    return made


def after_the_knock(handle: Handler) -> Handler:
    """Return a handler of clients that say something; doctor first looks whether anybody is there at all."""

    def only_speakers(client: socket.socket) -> None:
        if client.recv(1, socket.MSG_PEEK):
            handle(client)

    return only_speakers


def over(pid: Path) -> bool:
    """Whether the process is over whose number a file holds, be it that nobody has asked for its end yet."""
    try:
        return psutil.Process(int(pid.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """Return a folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="doctor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
