from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.measuring import Conditions, worth_repeating
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.session import measure_once, open_session
from reconvene_agent.worker.deploy.surroundings import Look, between, look
from support.graphs import product
from support.planting import plant

__all__ = ["plant"]

STAT = """cpu  100 0 50 1000 5 1 2 7 0 0
cpu0 60 1 20 500 3 1 1 4 0 0
cpu1 40 0 30 500 2 0 1 3 0 0
intr 1 2 3
"""


def seen(at: float = 0.0, busy: float = 0.0, own: float = 0.0, stolen: float = 0.0, **more: object) -> Look:
    fields = {"processors": 2, "waited": None, "throttled": None, "throttled_count": 0, "clock": None, **more}
    return Look(at=at, busy=busy, own=own, stolen=stolen, **fields)


def test_what_the_kernel_counts_for_the_usable_processors(plant: Callable[..., Path]) -> None:
    root = plant({"proc/stat": STAT, "proc/thread-self/schedstat": "5000000000 1500000000 42\n"})
    ticks = os.sysconf("SC_CLK_TCK")
    both, one = look(root, [0, 1, 7]), look(root, [1])
    assert (both.processors, round(both.busy * ticks), round(both.stolen * ticks)) == (2, 83 + 71, 7)
    assert (one.processors, round(one.busy * ticks), round(one.stolen * ticks)) == (1, 71, 3)
    assert (one.waited, one.throttled, one.throttled_count, one.clock) == (1.5, None, 0, None)


@pytest.mark.parametrize("files", [{}, {"proc/stat": "cpu0\n\ncpu1 x y\n", "proc/thread-self/schedstat": "1 2\n"}])
def test_a_kernel_that_tells_nothing_or_nonsense_is_no_disturbance(files: dict[str, str], plant: Callable[..., Path]) -> None:
    root = plant(files)
    found = between(look(root, [0, 1]), look(root, [0, 1]))
    assert (found.waited, found.throttled, found.clock) == (None, None, None)
    assert found.others in (None, 0.0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (seen(10.0, busy=10.0, own=10.0), Conditions(others=0.0, stolen=0.0)),
        (seen(10.0, busy=15.0, own=10.0, stolen=1.0), Conditions(others=0.25, stolen=0.05)),
        (seen(10.0, busy=10.015, own=10.0), Conditions(others=0.0, stolen=0.0)),
        (seen(10.0, busy=9.0, own=10.0), Conditions(others=0.0, stolen=0.0)),
        (seen(10.0, processors=1, busy=99.0), Conditions()),
        (seen(10.0, throttled_count=1), Conditions(others=0.0, stolen=0.0, throttled=True)),
        (seen(10.0, throttled=False, clock=0.51239), Conditions(others=0.0, stolen=0.0, throttled=False, clock=0.5124)),
        (seen(0.0), Conditions()),
    ],
)
def test_what_changed_between_two_looks(after: Look, expected: Conditions) -> None:
    assert between(seen(), after) == expected


def test_throttling_at_either_end_counts() -> None:
    for first, last in ((True, False), (False, True)):
        assert between(seen(throttled=first), seen(1.0, throttled=last)).throttled is True


@given(*(st.builds(seen, *[st.floats(0.0, 1e6)] * 4, waited=st.none() | st.floats(0.0, 1e6)) for _ in range(2)))
def test_shares_are_shares(before: Look, after: Look) -> None:
    found = between(before, after)
    for share in (found.others, found.stolen, found.waited):
        assert share is None or 0.0 <= share <= 1.0


@pytest.fixture
def one_processor() -> Iterator[int]:
    """Keep this thread on one processor, which what it starts inherits."""
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


@pytest.fixture
def neighbour(one_processor: int) -> Iterator[None]:
    """Keep a process on the same processor that never rests."""
    busy = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        yield
    finally:
        busy.kill()
        busy.wait()
        busy.stdout.close()


@pytest.mark.usefixtures("neighbour")
def test_a_latency_measured_beside_a_busy_process_is_in_doubt() -> None:
    session = open_session(product(2048), Runtime(1, 1, ("CPUExecutionProvider",), 1))
    found = measure_once(session, 0.5)
    assert found.conditions.others is not None
    assert found.conditions.others > 0.3
    assert any(doubt.startswith("other processes took ") for doubt in found.doubts)
    # Some kernels keep no statistics of their scheduler.
    if Path("/proc/thread-self/schedstat").exists():
        assert found.conditions.waited is not None
        assert found.conditions.waited > 0.3
    assert worth_repeating(found, Budget(), 0, final=True)
    assert worth_repeating(found, Budget(latency_ms=Limit(0.99 * found.latency.p95, "test")), 0)


def test_ones_own_work_is_no_disturbance(one_processor: int) -> None:
    before = look()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    after = look()
    mine = after.own - before.own
    assert mine >= 0.3
    found = between(before, after)
    assert found.others is not None
    # Whatever else runs on this machine counts, but not our own share.
    assert found.others <= 1 - mine / (after.at - before.at) + 0.1
