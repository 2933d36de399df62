"""``doctor`` as a command: its two forms, its exit codes, and its end on Ctrl-C. What it finds has tests of its own."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent import __version__
from reconvene_agent.cli.doctor.account import acting_as
from support.brokers import HOST, Mosquitto, free_port
from support.commandline import Cli, Running, configured
from support.daemons import Daemon
from support.doctoring import NOBODY, everybodys, over
from support.waiting import until

__all__ = ["everybodys"]

CHECKS = [
    "config",
    "service",
    "profile",
    "files",
    "credentials",
    "disk",
    "worker",
    "memory",
    "power",
    "kernel",
    "broker",
    "clock",
]


def interpreter(folder: Path, body: str) -> str:
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return str(python)


def board(folder: Path, broker_url: str = "", python: str = "/bin/true", **agent: Any) -> Path:
    """Return a configuration with all the folders that it names."""
    state = folder / "state"
    for name in ("bundles", "data"):
        (state / name).mkdir(parents=True, exist_ok=True)
    settings = {"agent": {"state_dir": str(state), "device_id": "board-1", **agent}, "worker": {"python": python}}
    return configured(folder, **settings, broker={"url": broker_url})


def test_all_is_well_on_a_board_with_an_agent_a_broker_and_a_worker(tmp_path: Path, broker: Mosquitto, cli: Cli) -> None:
    with Daemon(tmp_path, broker.url, sys.executable, worker={"start_timeout_s": 60.0}) as daemon:
        until(lambda: daemon.status()["broker"]["connected"])
        ended = cli("doctor", "--config", daemon.config, "--json")
    document = ended.document
    loaded = r"loads numpy [\d.]+, torch 2\.\S+, safetensors \S+, PIL \S+, onnx \S+, onnxscript \S+, onnxruntime \S+, in"
    assert any(re.search(loaded, finding["found"]) for finding in document["findings"])
    verdicts = {finding["code"]: finding["verdict"] for finding in document["findings"]}
    assert {code for code, verdict in verdicts.items() if verdict not in ("ok", "skipped")} <= {"service.unread-config"}
    assert {"service.good", "files.good", "worker.good", "broker.good", "broker.rights", "clock.trusted"} <= set(verdicts)
    assert (ended.code, ended.err) == (0, "")


def test_the_document(tmp_path: Path, cli: Cli) -> None:
    ended = cli("doctor", "--config", board(tmp_path), "--offline", "--json")
    document = ended.document
    assert set(document) == {"version", "counts", "findings"}
    assert document["version"] == __version__
    assert all(set(finding) == {"check", "code", "verdict", "found", "advice"} for finding in document["findings"])
    assert list(dict.fromkeys(finding["check"] for finding in document["findings"])) == CHECKS
    counts = document["counts"]
    assert list(counts) == ["ok", "warning", "problem", "skipped"]
    assert sum(counts.values()) == len(document["findings"])
    assert counts["problem"] >= 1, "the worker's interpreter is none"
    assert ended.code == 1
    assert ended.err == ""


def test_warnings_alone_are_no_failure(tmp_path: Path, cli: Cli) -> None:
    facts = msgspec.json.encode({"python": "3.11", "agent": __version__, "peak_mb": 1}).decode()
    ended = cli("doctor", "--config", board(tmp_path, python=interpreter(tmp_path, f"echo '{facts}'")), "--offline", "--json")
    counts = ended.document["counts"]
    assert (counts["problem"], ended.code) == (0, 0)
    assert counts["warning"] >= 1, "no agent runs"


def test_what_people_see(tmp_path: Path, cli: Cli) -> None:
    port = free_port()
    ended = cli("doctor", "--config", board(tmp_path, f"mqtt://{HOST}:{port}"))
    lines = ended.out.splitlines()
    at = lines.index(f"broker       PROBLEM  nobody listens at {HOST}:{port}")
    assert lines[at + 1].startswith("                      → start the broker there, or correct the port in broker.url in ")
    assert lines[-1].startswith("2 problems and ")
    assert (ended.code, ended.err) == (1, "")


def test_several_mistakes_in_the_configuration_are_all_told_and_the_rest_is_looked_at(tmp_path: Path, cli: Cli) -> None:
    config = configured(tmp_path, agent={"log_level": "loud", "devise_id": "x"}, broker={"url": "http://h"})
    ended = cli("doctor", "--config", config)
    assert ended.code == 1
    assert ended.out.count("config       PROBLEM  ") == 3
    for check in CHECKS:
        assert any(line.startswith(check) for line in ended.out.splitlines()), check


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_ends_everything_and_shows_what_was_found(tmp_path: Path, as_json: bool) -> None:
    started = tmp_path / "started"
    config = board(tmp_path, python=interpreter(tmp_path, f"sleep 600 & echo $! > {started}; wait"))
    with Running("doctor", "--config", config, *(["--json"] if as_json else [])) as running:
        until(lambda: started.exists() and started.read_text().strip(), 30)
        running.signal(signal.SIGINT)
        ended = running.end()
    assert ended.code == 130
    assert ended.complaint == "stopped before everything was looked at"
    if as_json:
        document = ended.error("INTERRUPTED")
        assert [finding["check"] for finding in document["findings"]][-1] == "disk"
    else:
        assert "config       ok " in ended.out
    until(lambda: over(started))


def test_the_worker_does_not_outlive_it(tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(600)"
    (tmp_path / "numpy.py").write_text(text)
    python = interpreter(tmp_path, f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
    with Running("doctor", "--config", board(tmp_path, python=python)) as running:
        until(lambda: started.exists() and started.read_text(), 30)
        running.signal(signal.SIGKILL)
        until(lambda: over(started))


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: an ordinary user, since only root can act as one")
def test_an_ordinary_user_is_told_what_could_not_be_looked_at(everybodys: Path, cli: Cli) -> None:
    config = board(everybodys)
    state = everybodys / "state"
    os.chown(state, 1, 1)
    state.chmod(0o700)
    words = ("doctor", "--config", config, "--offline", "--json")
    as_root = cli(*words)  # which also loads all that it needs of a checkout that others may not read
    with acting_as(NOBODY):
        ended = cli(*words)
    assert not any(finding["advice"] == "sudo reconvene-agent doctor" for finding in as_root.document["findings"])
    hidden = {finding["code"] for finding in ended.document["findings"] if "sudo reconvene-agent doctor" in finding["advice"]}
    assert hidden == {"service.forbidden", "files.hidden", "worker.unreachable"}
    config.chmod(0o600)
    with acting_as(NOBODY):
        ended = cli(*words)
    assert ended.document["findings"][0]["code"] == "config.forbidden"
    assert (ended.code, ended.err) == (0, ""), "it knows of no problem"
