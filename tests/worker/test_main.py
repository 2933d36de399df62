"""The worker as the process that it is: what it answers, what it survives, and what it does not outlive."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from reconvene_agent import __version__
from reconvene_agent.core import protocol
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.protocol import Done, Failed, Progress, PruneRequest, Ready, Stop, Suspended, Upward
from reconvene_agent.worker import __main__ as entry
from reconvene_agent.worker import operations
from reconvene_agent.worker.channel import StopRequested
from support.models import RUNTIME
from support.runs import NOBODY, Watched


def site(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every Python started from here run ``code`` first."""
    (folder / "sitecustomize.py").write_text(dedent(code))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def talk(*lines: bytes) -> tuple[list[Upward], int]:
    """Start a worker, say these lines to it and nothing more, and return what it says and its exit code."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        command = [sys.executable, "-m", "reconvene_agent.worker", "--channel", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        theirs.close()
        for line in lines:
            ours.sendall(line)
        ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as heard:
            said = [protocol.decode_upward(line) for line in heard]
        return said, process.wait(60)


def test_it_greets_with_who_it_is() -> None:
    worker = Watched(NOBODY)
    greeting = worker.until(lambda message: isinstance(message, Ready))
    assert greeting == Ready(protocol.VERSION, __version__, worker.process.pid)
    assert worker.end().returncode == 0
    assert worker.ended is not None
    assert worker.ended.broken == ""


def test_without_a_request_it_leaves() -> None:
    said, code = talk()
    assert [type(each) for each in said] == [Ready]
    assert code == 0


def test_a_stop_in_place_of_a_request_is_all_it_takes() -> None:
    said, code = talk(protocol.encode(Stop("suspend")))
    assert [type(each) for each in said] == [Ready]
    assert code == 0


@pytest.mark.parametrize(
    "line",
    [b"rubbish\n", b'{"type":"plan"}\n', b'{"type":"\xff"}\n', b"[" * 10_000 + b"\n", b'{"type":"predict","images":["a"'],
    ids=["no json", "fields missing", "no utf-8", "deep", "cut short"],
)
def test_a_request_that_cannot_be_read_is_answered(line: bytes) -> None:
    said, code = talk(line)
    outcome = said[-1]
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.INTERNAL
    assert outcome.message.startswith("the request cannot be read: ")
    assert code == 0


def test_what_is_printed_by_others_cannot_corrupt_the_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(
        tmp_path,
        monkeypatch,
        """
        import os, sys, types
        print("early")

        def run(request, channel):
            print("printed")
            os.write(1, b"written\\n")
            os.system("echo by a child")
            return {"fine": True}

        sys.modules["reconvene_agent.worker.operations"] = types.SimpleNamespace(run=run)
        """,
    )
    worker = Watched(NOBODY)
    assert worker.outcome == Done({"fine": True})
    assert {"printed", "written", "by a child"} <= set(worker.log)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('return {"x": "y" * (1 << 20)}', "the outcome cannot be told: "),
        (r'return {"x": "\udcff"}', "the outcome cannot be told: "),
        ('raise KeyError("first line\\nsecond line")', "KeyError: "),
    ],
    ids=["too long", "no text", "a defect"],
)
def test_whatever_goes_wrong_it_answers_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    site(
        tmp_path,
        monkeypatch,
        f"""
        import sys, types

        def run(request, channel):
            {body}

        sys.modules["reconvene_agent.worker.operations"] = types.SimpleNamespace(run=run)
        """,
    )
    worker = Watched(NOBODY)
    outcome = worker.outcome
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.INTERNAL
    assert outcome.message.startswith(said)
    assert len(outcome.message.splitlines()) == 1
    assert worker.end().returncode == 0


@pytest.mark.parametrize("missing", ["torch", "onnxruntime"])
def test_a_library_that_is_missing_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    site(
        tmp_path,
        monkeypatch,
        f"""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name == "{missing}":
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())
        """,
    )
    request = NOBODY if missing == "onnxruntime" else PruneRequest("/b", 0.5, protocol.MethodOptions(), RUNTIME, "/out")
    outcome = Watched(request).outcome
    assert outcome == Failed(ErrorCode.INTERNAL, f"{sys.executable} lacks {missing}: install 'reconvene-agent[worker]' there")


def test_it_dies_with_whoever_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(
        tmp_path,
        monkeypatch,
        """
        import sys, threading, types
        wait = types.SimpleNamespace(run=lambda request, channel: threading.Event().wait())
        sys.modules["reconvene_agent.worker.operations"] = wait
        """,
    )
    parent = """
    import sys
    from support.runs import NOBODY, Watched
    from reconvene_agent.core.protocol import Ready

    worker = Watched(NOBODY)
    worker.until(lambda message: isinstance(message, Ready))
    print(worker.process.pid, flush=True)
    sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
    command = [sys.executable, "-c", dedent(parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        worker = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
    try:
        gone, _, _ = select.select([worker], [], [], 10)
        assert gone, "the worker outlived its parent by 10 s"
    finally:
        os.close(worker)


SIGTERMED = """
import signal, sys, threading, time, types
from reconvene_agent.core.job import Step

def run(request, channel):
    channel.progress(Step.TRAIN, 0.5, "at it")
    {body}

sys.modules["reconvene_agent.worker.operations"] = types.SimpleNamespace(run=run)
"""


@pytest.mark.parametrize(
    ("body", "outcome", "returncode"),
    [
        ("while True: channel.check(); time.sleep(0.01)", Suspended(), 0),
        ("threading.Event().wait()", None, entry.TERMINATED),
        ("while True: pass", None, entry.TERMINATED),
    ],
    ids=["reporting", "waiting", "computing"],
)
def test_sigterm_ends_it_in_time_at_a_safe_point_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, outcome: Upward | None, returncode: int
) -> None:
    site(tmp_path, monkeypatch, SIGTERMED.format(body=body))
    worker = Watched(NOBODY)
    worker.until(lambda message: isinstance(message, Progress))
    worker.process.terminate()
    before = time.monotonic()
    assert worker.end().returncode == returncode
    assert time.monotonic() - before < entry.LEAVE_WITHIN_S + 1
    assert outcome is None or worker.outcome == outcome


class Silent:
    """A channel that nobody listens to."""


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run


def refused_memory() -> Exception:
    try:
        torch.empty(1 << 60)
    except RuntimeError as error:
        return error
    raise AssertionError("so much memory should be refused")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (AgentError("told", ErrorCode.BAD_DATA), ErrorCode.BAD_DATA, "told"),
        (StopRequested("cancel"), ErrorCode.CANCELED, "canceled on request"),
        (MemoryError(), ErrorCode.NO_MEMORY, "ran out of memory"),
        (refused_memory(), ErrorCode.NO_MEMORY, "ran out of memory, 4398046511104 MiB more were needed"),
        (RuntimeError("std::bad_alloc"), ErrorCode.NO_MEMORY, "ran out of memory"),
        (OSError(28, "No space left on device"), ErrorCode.NO_DISK, "no space left on the disk while working"),
        (OSError(122, "Disk quota exceeded"), ErrorCode.NO_DISK, "no space left"),
        (PermissionError(13, "Permission denied", "/data"), ErrorCode.INTERNAL, "/data: Permission denied"),
        (OSError("odd"), ErrorCode.INTERNAL, "odd"),
        (ImportError("libgomp.so: cannot open"), ErrorCode.INTERNAL, "lacks libgomp.so: cannot open"),
        (ZeroDivisionError("division by zero"), ErrorCode.INTERNAL, "ZeroDivisionError: division by zero"),
    ],
)
def test_every_failure_has_its_code_and_line(
    error: Exception, code: ErrorCode, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "run", raising(error))
    outcome = entry._run(Silent(), NOBODY)
    assert isinstance(outcome, Failed)
    assert (outcome.code, message in outcome.message) == (code, True), outcome


def test_a_suspended_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "run", raising(StopRequested("suspend")))
    assert entry._run(Silent(), NOBODY) == Suspended()


def test_what_a_failure_keeps_of_its_work_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "run", raising(AgentError("told", ErrorCode.INFEASIBLE, {"plan": 1})))
    assert entry._run(Silent(), NOBODY) == Failed(ErrorCode.INFEASIBLE, "told", {"plan": 1})
