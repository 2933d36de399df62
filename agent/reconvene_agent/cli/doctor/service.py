"""The service: whether the agent runs and answers, in which version, with which configuration, and as whom."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent import __version__
from reconvene_agent.cli.doctor.account import Account
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.core.errors import AgentError, NotRunningError
from reconvene_agent.core.topics import SERVICE
from reconvene_agent.daemon.service.control import TIMEOUT_S, ask_status

GOOD = ok("service.good", "the agent runs as process {pid} of {user}, version {version}, state {state}")
STOPPED = warning(
    "service.stopped",
    "the agent does not run: nobody answers at {socket}",
    "sudo systemctl enable --now reconvene-agent; if it does run, its agent.state_dir or agent.runtime_dir is not that in {file}",
)
FAILED = problem(
    "service.failed",
    "systemd could not keep the agent running: {result}, started again {restarts} times",
    "journalctl -u reconvene-agent -n 50 says why; then sudo systemctl reset-failed reconvene-agent and restart it",
)
SILENT = problem(
    "service.silent",
    "the agent at {socket} does not answer: {why}",
    "sudo systemctl restart reconvene-agent; journalctl -u reconvene-agent -n 50 says what it was doing",
)
FORBIDDEN = skipped(
    "service.forbidden",
    "you may not ask the agent at {socket}",
    "sudo reconvene-agent doctor, or join its group: sudo usermod -aG {group} $USER, then log in again",
)
OUTDATED = warning(
    "service.outdated", "version {runs} runs, but {installed} is installed", "sudo systemctl restart reconvene-agent"
)
UNREAD = warning(
    "service.unread-config",
    "{file} was changed after the agent had read it",
    "sudo systemctl restart reconvene-agent",
)
PAUSED = warning(
    "service.paused",
    "work waits: {reason}",
    "if a command has paused it: reconvene-agent resume; otherwise it goes on by itself, as docs/pauses.md says",
)
COMPLAINS = warning(
    "service.complains", "the agent says: {complaint}", "journalctl -u reconvene-agent -n 50, and the other findings here"
)

SYSTEMCTL_S = 5.0


def check(case: Case) -> Iterator[Finding]:
    """Ask the agent for its status; the case learns of it, and whose rights count."""
    assert case.config is not None
    path = case.config.socket_path
    case.service = _expected(case.config.state_dir)
    try:
        case.status = ask_status(path)
        case.pid, case.service = _peer(path)
    except NotRunningError:
        yield from _not_running(case, path)
        return
    except AgentError as error:
        if isinstance(error.__cause__, PermissionError):
            yield FORBIDDEN(socket=path, group=SERVICE)
        else:
            yield SILENT(socket=path, why=error.message)
        return
    except OSError as error:  # it left between the two questions
        yield SILENT(socket=path, why=error.strerror)
        return
    runs = case.status["version"]
    yield GOOD(pid=case.pid, user=case.service.name, version=runs, state=case.status["state"])
    if runs != __version__:
        yield OUTDATED(runs=runs, installed=__version__)
    if case.file is not None and case.file.stat().st_mtime > time.time() - case.status["uptime_s"]:
        yield UNREAD(file=case.file)
    if case.status["paused"]:
        yield PAUSED(reason=case.status["paused"])
    for complaint in case.status["problems"]:
        yield COMPLAINS(complaint=complaint)


def _not_running(case: Case, path: Path) -> Iterator[Finding]:
    unit = _unit(case.root)
    if unit.get("ActiveState") == "failed" or unit.get("SubState") == "auto-restart":
        yield FAILED(result=unit.get("Result", "unknown"), restarts=unit.get("NRestarts", "0"))
    else:
        yield STOPPED(socket=path, file=case.settings)


def _expected(state_dir: Path) -> Account:
    """Return the account that the agent would run as: the owner of its state, unless that is root by mistake."""
    me, service = Account.of_this_process(), Account.of_service()
    try:
        owner = state_dir.stat().st_uid
    except PermissionError:
        return service or me
    except OSError:
        return service if service is not None and me.uid == 0 else me
    if service is not None and owner == 0:
        return service
    return me if owner == me.uid else Account.of_user(owner)


def _peer(path: Path) -> tuple[int, Account]:
    """Return the process that listens on a socket, and its account.

    Raises:
        OSError: nobody listens there any more.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(os.fspath(path))
        pid, uid, gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    me = Account.of_this_process()
    return pid, me if uid == me.uid else Account.of_user(uid, gid)


def _unit(root: Path) -> dict[str, str]:
    """Return what systemd says of the service; nothing where there is no systemd."""
    program = shutil.which("systemctl")
    if program is None or not (root / "run/systemd/system").is_dir():
        return {}
    words = [program, "show", f"{SERVICE}.service", "--property=ActiveState,SubState,Result,NRestarts"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)
