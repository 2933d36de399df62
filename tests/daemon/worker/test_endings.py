from __future__ import annotations

import signal
from typing import Any

import pytest

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.daemon.events import WorkerEnded
from reconvene_agent.daemon.worker.endings import explain


def ended(returncode: int, broken: str = "", out_of_memory: bool = False, stderr: str = "") -> WorkerEnded:
    return WorkerEnded("k", returncode, broken, out_of_memory, stderr)


CASES: list[tuple[WorkerEnded, str, ErrorCode, str]] = [
    (ended(0), "", ErrorCode.INTERNAL, "the worker left with exit code 0 and no result"),
    (ended(3, stderr="a\nboom\n\n"), "", ErrorCode.INTERNAL, "the worker left with exit code 3 and no result: boom"),
    (ended(-signal.SIGSEGV, stderr="x"), "", ErrorCode.INTERNAL, "the worker crashed with SIGSEGV: x"),
    (ended(-signal.SIGABRT), "", ErrorCode.INTERNAL, "the worker crashed with SIGABRT"),
    (ended(-63), "", ErrorCode.INTERNAL, "the worker crashed with signal 63"),
    (ended(-signal.SIGKILL), "", ErrorCode.INTERRUPTED, "the worker was ended by SIGKILL from outside"),
    (ended(-signal.SIGTERM), "", ErrorCode.INTERRUPTED, "the worker was ended by SIGTERM from outside"),
    (
        ended(-signal.SIGKILL, out_of_memory=True),
        "",
        ErrorCode.OOM_KILLED,
        "the kernel killed the worker for want of memory: lower the training batch or the budget",
    ),
    (ended(-signal.SIGKILL), "silent for 5 s", ErrorCode.TIMED_OUT, "the worker was stopped: silent for 5 s"),
    (
        ended(-signal.SIGKILL, broken="it sent b'x'"),
        "silent for 5 s",
        ErrorCode.INTERNAL,
        "the worker broke its protocol: it sent b'x'",
    ),
]


@pytest.mark.parametrize(("end", "verdict", "code", "detail"), CASES)
def test_what_an_end_means(end: Any, verdict: str, code: ErrorCode, detail: str) -> None:
    assert explain(end, verdict) == (code, detail)


def test_the_last_words_are_cut_to_one_line() -> None:
    _, detail = explain(ended(1, stderr="x" * 5000 + "\n"), "")
    assert len(detail) < 400
    assert "\n" not in detail
