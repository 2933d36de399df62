"""Commands outside of the training windows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from reconvene_agent.core.config import WorkerSection
from reconvene_agent.daemon import events
from reconvene_agent.daemon.board.pauses import LOOK_EVERY_S
from support.agents import CONFIG, JOB, AgentBench
from support.pausing import launches, suspend, told

HOUR = 3600.0
Windowed = Callable[..., AgentBench]


@pytest.fixture
def windowed() -> Windowed:
    """Return a function that makes an agent whose only window begins at ten in the evening; it is so many hours before."""

    def make(hours: float, synchronized: bool = True) -> AgentBench:
        worker: WorkerSection = msgspec.structs.replace(CONFIG.worker, windows=("22:00-23:00",))
        bench = AgentBench(msgspec.structs.replace(CONFIG, worker=worker), synchronized=synchronized)
        opens = bench.agent._guard.opens_at(bench.now)
        bench.now = bench.now.__class__(opens - hours * HOUR, bench.now.mono, synchronized)
        bench.post(events.Started())
        bench.connect()
        bench.forget()
        return bench

    return make


def test_a_job_waits_for_its_window_and_pauses_at_its_end(windowed: Windowed) -> None:
    bench = windowed(2)
    bench.command(JOB)
    assert bench.states(JOB)[-1]["reason"] == "paused: outside of the training windows (22:00-23:00)"
    for _ in range(4):
        bench.wait(HOUR / 2 + LOOK_EVERY_S)
    assert bench.statuses(JOB)[-1] == "executing"
    for _ in range(2):
        bench.wait(HOUR / 2)
    suspend(bench)
    assert told(bench) == [("paused", "window"), ("resumed", None), ("paused", "window")]
    assert launches(bench) == 1
    for _ in range(24):
        bench.wait(HOUR)
    assert launches(bench) == 2


def test_a_plan_does_not_wait_for_a_window(windowed: Windowed) -> None:
    bench = windowed(2)
    bench.command("plan/1")
    assert bench.statuses("plan/1")[-1] == "executing"


def test_a_command_that_expires_before_the_window_opens_is_refused_at_once(windowed: Windowed) -> None:
    bench = windowed(2)
    bench.command(JOB, expires_at=bench.now.wall + 2 * HOUR - 1)
    assert bench.failure(JOB) == "OUTSIDE_WINDOW"
    assert "expires before a training window opens, which is at " in bench.states(JOB)[-1]["reason"]
    bench.command("specialize/2", expires_at=bench.now.wall + 2 * HOUR + 60)
    assert bench.statuses("specialize/2")[-1] == "scheduled"


def test_a_job_whose_timeout_passes_outside_of_the_window(windowed: Windowed) -> None:
    bench = windowed(-0.75)
    bench.command(JOB, timeout_s=HOUR)
    assert bench.statuses(JOB)[-1] == "executing"
    bench.wait(HOUR / 4)
    suspend(bench)
    bench.wait(HOUR)
    assert bench.failure(JOB) == "OUTSIDE_WINDOW"


def test_without_a_clock_windows_keep_training_waiting(windowed: Windowed) -> None:
    bench = windowed(-0.1, synchronized=False)
    bench.command(JOB)
    assert "CLOCK_UNSYNCED" in bench.states(JOB)[-1]["reason"]
    assert told(bench) == [("paused", "clock")]
    bench.synchronize()
    bench.wait(LOOK_EVERY_S)
    assert bench.statuses(JOB)[-1] == "executing"
