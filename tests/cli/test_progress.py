"""Progress on stderr: lines for logs, a bar for terminals, and one wording for both."""

from __future__ import annotations

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reconvene_agent.cli import progress
from reconvene_agent.cli.progress import Bar, Lines, describe, progress_for
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Happening
from reconvene_agent.core.protocol import Progress as Message

LATENCY = {"p50": 1.0, "p95": 1.2345}
TOLD: dict[str, tuple[str, dict[str, Any], str]] = {
    "a plan": (
        "plan",
        {"chosen": {"sparsity": 0.85, "width_multiplier": 1.0, "params": 1030056, "latency_ms": LATENCY}},
        "plan: sparsity 0.85, 1,030,056 parameters, p95 1.23 ms",
    ),
    "an unmeasured plan": (
        "plan",
        {"chosen": {"sparsity": 0.5, "width_multiplier": 0.7, "params": 10, "latency_ms": None}},
        "plan: width ×0.7, sparsity 0.5, 10 parameters",
    ),
    "a pruning": (
        "prune",
        {"params": {"dense": 2000, "stored": 100}, "seconds": {"total": 0.4}},
        "pruned: 2,000 → 100 parameters in 0.40 s",
    ),
    "an epoch": (
        "epoch",
        {"epoch": 2, "epochs": 5, "loss": 0.5, "accuracy": 0.875},
        "epoch 2/5: loss 0.500, held-out accuracy 87.5%",
    ),
    "a warning": ("warning", {"text": "2 images were skipped"}, "warning: 2 images were skipped"),
    "a warning with examples": (
        "warning",
        {"text": "4 images were skipped", "examples": ["a", "b", "c", "d"]},
        "warning: 4 images were skipped (a; b; c)",
    ),
    "a release": (
        "release",
        {"version": "r0001-x", "bytes": 4096, "latency_ms": LATENCY},
        "released r0001-x: 4,096 bytes, p95 1.23 ms",
    ),
    "anything else": ("new-in-a-later-version", {"x": 1}, ""),
}


@pytest.mark.parametrize("what", TOLD)
def test_an_event_in_words(what: str) -> None:
    name, data, text = TOLD[what]
    assert describe(Happening(name, data)) == text


def test_lines_tell_every_step_once_in_a_while() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    for message in (
        Message(Step.PLAN, 0.0, "measuring"),
        Message(Step.PLAN, 0.5, "left out"),
        Message(Step.TRAIN, 0.125),
        Message(Step.PLAN, 1.0, "again"),
    ):
        lines.update(message)
    assert stream.getvalue() == "plan        0% measuring\ntrain      12%\nplan      100% again\n"


def test_lines_tell_a_long_step_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    lines = Lines(stream)
    for share in (0.1, 0.2):
        lines.update(Message(Step.TRAIN, share))
    assert stream.getvalue() == "train      10%\ntrain      20%\n"


def test_lines_leave_out_events_that_nobody_asks_for() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.happened(Happening("new-in-a-later-version", {}))
    lines.happened(Happening("warning", {"text": "careful"}))
    assert stream.getvalue() == "warning: careful\n"


def test_a_log_gets_lines() -> None:
    with progress_for(io.StringIO()) as shown:
        assert isinstance(shown, Lines)


def whole(screen: io.FileIO) -> bytes:
    """Return all that a terminal shows until nobody writes to it any more."""
    seen = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while piece := screen.read(4096):
            seen += piece
    return seen


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end_and_lines_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    reading, writing = os.openpty()
    with os.fdopen(reading, "rb", buffering=0) as screen, ThreadPoolExecutor() as pool:
        seen = pool.submit(whole, screen)
        with os.fdopen(writing, "w") as terminal, progress_for(terminal) as shown:
            assert isinstance(shown, Bar)
            shown.update(Message(Step.TRAIN, 0.25, "epoch 1 of 4"))
            shown.happened(Happening("warning", {"text": "[red]careful[/red]"}))
            shown.happened(Happening("new-in-a-later-version", {}))
            shown.say("a line")
        written = seen.result().decode()
    assert "train" in written
    assert "25%" in written
    assert "epoch 1 of 4" in written
    assert "warning: [red]careful[/red]" in written, "what looks like markup is text"
    assert "a line" in written
    assert written.rstrip().endswith("\x1b[2K"), "the bar is wiped out"
