"""Trying a model in a process of its own: what an application that serves it will take, without the worker's libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from reconvene_agent.core import heap
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.trial import Outcome, Task

TIMEOUT_S = 120.0
"""Accelerators take a minute to load a model for the first time; what takes longer hangs."""
HEARTBEAT_S = 0.25

ENTRY = ("-m", "reconvene_agent.worker.deploy.trial")


class TrialFailed(Exception):  # noqa: N818 - a trial that failed is no failure of the plan
    """The process did not answer; the message says why, in words that fit behind a colon."""


def try_model(model: bytes, runtime: Runtime, seconds: float, memory_mb: float | None, heartbeat: Callable[[], None]) -> Outcome:
    """Return what a fresh process found; ``heartbeat`` is called while it works, and may raise to end it.

    Above ``memory_mb`` MiB its latency is not measured any more.

    Raises:
        TrialFailed: it cannot be started, fails, or takes too long.
    """
    try:
        with os.fdopen(os.memfd_create("model", 0), "wb") as file:
            file.write(model)
            file.flush()
            task = Task(f"/proc/self/fd/{file.fileno()}", runtime, seconds, os.getpid(), memory_mb)
            process = subprocess.Popen(
                [sys.executable, *ENTRY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(file.fileno(),),
                env={**heap.as_usual(os.environ), "PYTHONSAFEPATH": "1"},
            )
    except OSError as error:
        raise TrialFailed(error.strerror or str(error)) from error
    with process:
        try:
            told, complaint = _talk(process, msgspec.json.encode(task), heartbeat)
        finally:
            process.kill()
    return _read(process.returncode, told, complaint)


def _talk(process: subprocess.Popen[bytes], question: bytes, heartbeat: Callable[[], None]) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + TIMEOUT_S
    heartbeat()
    said = _listen(process, question)
    while said is None and time.monotonic() < deadline:
        heartbeat()
        said = _listen(process)
    if said is None:
        raise TrialFailed(f"no answer within {TIMEOUT_S:.0f} s")
    return said


def _listen(process: subprocess.Popen[bytes], question: bytes | None = None) -> tuple[bytes, bytes] | None:
    """Return all that the process says until it ends, or None where it has not ended soon."""
    try:
        return process.communicate(question, HEARTBEAT_S)
    except subprocess.TimeoutExpired:
        return None


def _read(returncode: int, told: bytes, complaint: bytes) -> Outcome:
    if returncode == 0:
        try:
            return msgspec.json.decode(told, type=Outcome)
        except msgspec.DecodeError:
            raise TrialFailed("its answer cannot be read") from None
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    how = f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    raise TrialFailed(f"{how}: {lines[-1][:200]}" if lines else how)
