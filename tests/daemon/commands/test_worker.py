from __future__ import annotations

from typing import Any

import pytest

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Done, Failed, Happening, Progress, Ready, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import JOB, TOPICS, AgentBench, key
from support.values import EPOCH, RELEASE


def test_progress_only_grows_and_spans_the_whole_run(bench: AgentBench) -> None:
    bench.command(JOB)
    for step in (*Step, Step.PLAN):
        for fraction in (0.0, 1.0):
            bench.say(Progress(step, fraction))
            bench.wait(2)
    seen = [state["progress"] for state in bench.states(JOB)]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_progress_is_published_now_and_then_and_journaled_step_by_step(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.forget()
    for number in range(100):
        bench.wait(0.1)
        bench.say(Progress(Step.TRAIN, number / 100))
    assert 4 <= len(bench.states(JOB)) <= 7
    assert len(bench.done(do.Save)) == 1


def test_words_of_another_worker_do_not_count(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.forget()
    bench.say(Done({}), "plan/99")
    bench.end("plan/99")
    assert bench.effects == []
    assert bench.agent.status(bench.now)["state"] == "specialize"


def test_words_after_the_end_do_not_count(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.end(returncode=1)
    bench.forget()
    bench.say(Done({}))
    bench.end()
    assert bench.effects == []


def test_a_known_failure_keeps_its_code_and_what_was_found(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Failed(ErrorCode.INFEASIBLE, "nothing fits", {"nearest_miss": 1}))
    bench.end()
    assert bench.failure(JOB) == "INFEASIBLE"
    assert bench.states(JOB)[-1]["result"] == {"nearest_miss": 1}


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"returncode": 0}, "INTERNAL"),
        ({"returncode": 3}, "INTERNAL"),
        ({"returncode": -11}, "INTERNAL"),
        ({"returncode": -9}, "INTERRUPTED"),
        ({"returncode": -9, "broken": "it sent rubbish"}, "INTERNAL"),
    ],
)
def test_a_worker_that_leaves_without_a_word(bench: AgentBench, facts: dict[str, Any], code: str) -> None:
    bench.command(JOB)
    bench.say(Ready(1, "", 1))
    bench.end(**facts)
    assert bench.failure(JOB) == code
    bench.command("ping/1")
    assert bench.statuses("ping/1") == ["successful"]


@pytest.mark.parametrize("returncode", [0, 143])
def test_a_worker_that_somebody_has_stopped_goes_on_at_the_cost_of_an_attempt(bench: AgentBench, returncode: int) -> None:
    bench.command(JOB)
    for attempt in (1, 2, 3):
        assert [launch.command.attempt for launch in bench.done(do.Launch)] == list(range(1, attempt + 1))
        if returncode == 0:
            bench.say(Suspended())
        bench.end(returncode=returncode)
    assert bench.failure(JOB) == "INTERRUPTED"
    assert bench.states(JOB)[-1]["reason"] == "somebody has stopped the worker; 3 of 3 attempts are used up"
    assert len(bench.done(do.Launch)) == 3


@pytest.mark.parametrize(("greets", "limit"), [(False, 100), (True, 200)])
def test_a_silent_worker_is_ended(bench: AgentBench, greets: bool, limit: int) -> None:
    bench.command(JOB)
    if greets:
        bench.say(Ready(1, "", 1))
    bench.wait(limit - 1)
    assert not bench.done(do.EndWorker)
    bench.wait(1)
    assert bench.done(do.EndWorker) == [do.EndWorker(hard=False)]
    bench.end(returncode=-15)
    assert bench.failure(JOB) == "TIMED_OUT"
    assert ("silent for 200 s" if greets else "no handshake within 100 s") in bench.states(JOB)[-1]["reason"]


def test_a_worker_that_stays_after_its_last_word_is_ended_and_has_succeeded(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Done({}))
    bench.wait(10)
    bench.wait(5)
    assert bench.done(do.EndWorker) == [do.EndWorker(hard=False), do.EndWorker(hard=True)]
    bench.end(returncode=-9)
    assert bench.statuses(JOB)[-1] == "successful"


def test_events_of_the_worker_reach_the_spool(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Happening("epoch", EPOCH))
    assert [record.topic for record in bench.done(do.Record)] == [TOPICS.event("epoch"), TOPICS.measurement("training")]


def test_a_new_release_is_looked_up(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Happening("release", RELEASE))
    assert bench.done(do.ReadRelease) == [do.ReadRelease()]


def test_a_worker_that_cannot_be_started(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.LaunchFailed(key(JOB), ErrorCode.BAD_BUNDLE, "there is no bundle"))
    assert bench.failure(JOB) == "BAD_BUNDLE"
    assert bench.agent.status(bench.now)["state"] == "idle"
