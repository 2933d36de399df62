"""A worker that the kernel kills for want of memory: planned again once, within less."""

from __future__ import annotations

import pytest

from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Done, Progress
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import JOB, TOPICS, AgentBench, key

LIMITS = {"training_memory_mb": 100.0, "memory_mb": 20.0}


@pytest.fixture
def killed(bench: AgentBench) -> AgentBench:
    """Return an agent whose worker was killed in its training for want of memory."""
    bench.command(JOB)
    bench.post(events.Launched(key(JOB), LIMITS))
    bench.say(Progress(Step.TRAIN, 0.5))
    bench.forget()
    bench.end(returncode=-9, oom=True)
    return bench


def test_it_starts_again_at_once_from_nothing_and_within_less(killed: AgentBench) -> None:
    (launch,) = killed.done(do.Launch)
    assert launch.command.ceilings_mb == {name: pytest.approx(0.7 * limit) for name, limit in LIMITS.items()}
    assert (launch.command.attempt, launch.command.progress) == (1, 0.0)
    order = [type(effect) for effect in killed.effects]
    assert order.index(do.Save) < order.index(do.Clean) < order.index(do.Launch)


def test_the_fleet_hears_of_it(killed: AgentBench) -> None:
    (told,) = (record.document for record in killed.done(do.Record) if record.topic == TOPICS.event("replanned"))
    assert told["command"] == JOB
    assert told["limits_mb"]["training_memory_mb"] == pytest.approx(70.0)
    assert "killed the worker for want of memory" in told["reason"]


def test_it_may_succeed_then(killed: AgentBench) -> None:
    killed.say(Done({"x": 1}))
    killed.end()
    assert killed.statuses(JOB)[-1] == "successful"


@pytest.mark.parametrize("restarted", [False, True])
def test_the_second_kill_is_the_end_also_with_a_restart_in_between(killed: AgentBench, restarted: bool) -> None:
    if restarted:
        killed.forget()
        killed.restart()
        (launch,) = killed.done(do.Launch)
        assert launch.command.ceilings_mb == {name: pytest.approx(0.7 * limit) for name, limit in LIMITS.items()}
        killed.connect()
    killed.post(events.Launched(key(JOB), {"training_memory_mb": 70.0}))
    killed.forget()
    killed.end(returncode=-9, oom=True)
    assert killed.failure(JOB) == "OOM_KILLED"
    assert not killed.done(do.Launch)


def test_on_the_last_attempt_it_is_planned_again_all_the_same(bench: AgentBench) -> None:
    bench.command(JOB)
    for _ in range(2):
        bench.restart()
    assert bench.journal[JOB].attempt == 3
    bench.forget()
    bench.end(returncode=-9, oom=True)
    assert [launch.command.attempt for launch in bench.done(do.Launch)] == [3]


def test_a_board_that_must_not_work_lets_it_wait(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.Launched(key(JOB), LIMITS))
    bench.fare(90.0)
    bench.forget()
    bench.end(returncode=-9, oom=True)
    bench.fare(90.0)
    assert not bench.done(do.Launch)
    bench.fare(60.0)
    assert len(bench.done(do.Launch)) == 1


def test_limits_that_did_not_change_are_not_stored_again(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.Launched(key(JOB), LIMITS))
    bench.forget()
    bench.post(events.Launched(key(JOB), LIMITS))
    bench.post(events.Launched(key("plan/9"), {"memory_mb": 1.0}))
    assert not bench.done(do.Save)
