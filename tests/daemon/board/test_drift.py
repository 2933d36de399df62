from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.budget import Budget, BudgetLimits, Limit
from reconvene_agent.core.config import DriftSection
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.protocol import Done, Failed
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.board.drift import BUSY_RETRY_S, KEY, Sustained
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from support.agents import CONFIG, JOB, TOPICS, AgentBench
from support.values import device, release

SERVES = msgspec.structs.replace(release(), memory_mb=40.0, budget=Budget(latency_ms=Limit(5.0, "profile")))
HOUR = 3600.0


@pytest.fixture
def bench() -> AgentBench:
    """Return an agent that times its model every hour, with 10 MiB in reserve."""
    settings = DriftSection(sustained_s=600.0, check_interval_s=HOUR, timeout_s=60.0)
    made = AgentBench(msgspec.structs.replace(CONFIG, drift=settings, budget=BudgetLimits(reserve_mb=10.0)))
    made.post(events.Started())
    made.connect()
    made.post(events.ReleaseRead(SERVES))
    made.forget()
    return made


def problems(bench: AgentBench) -> list[str]:
    found: list[str] = bench.agent.status(bench.now)["problems"]
    return found


def sample(bench: AgentBench, available_mb: float, seconds: float = 300.0) -> list[str]:
    """Let the board say, after so many seconds, how much memory is available."""
    bench.wait(seconds)
    bench.post(events.Sampled({}, device(available_mb=available_mb)))
    return problems(bench)


def timed(bench: AgentBench, p95: float, version: str = SERVES.version) -> None:
    """Let the worker that times the model say its figures and leave."""
    result = {"version": version, "latency_ms": {"p50": p95 / 2, "p95": p95, "runs": 30}}
    bench.post(WorkerSaid(KEY, Done(result)))
    bench.post(WorkerEnded(KEY, 0, "", False, ""))


def alarms(bench: AgentBench) -> list[dict[str, Any] | None]:
    topic = TOPICS.alarm("over_budget")
    found = [effect.payload for effect in bench.done(do.Publish) if effect.topic == topic]
    return [msgspec.json.decode(payload) if payload else None for payload in found]


# --- memory ------------------------------------------------------------------------------------------------------------------


def test_memory_that_is_short_for_a_sustained_time_is_an_alarm_until_there_is_enough(bench: AgentBench) -> None:
    assert [sample(bench, mb) for mb in (100, 49, 49)] == [[], [], []]
    (problem,) = sample(bench, 49)
    assert problem == "the deployed model no longer fits its budget: 40 MiB of memory are needed and 39 are left"
    assert [len(sample(bench, mb)) for mb in (60, 60, 60)] == [1, 1, 0]
    sounded, cleared = alarms(bench)
    assert sounded is not None
    assert (sounded["severity"], cleared) == ("major", None)


def test_memory_that_is_short_for_a_moment_is_none(bench: AgentBench) -> None:
    for mb in (49, 49, 60, 49, 49, 60):
        assert sample(bench, mb) == []


def test_another_release_starts_anew(bench: AgentBench) -> None:
    for _ in range(4):
        sample(bench, 20)
    assert problems(bench)
    bench.post(events.ReleaseRead(msgspec.structs.replace(SERVES, version="r0002-00000001", memory_mb=5.0)))
    assert problems(bench) == []
    assert alarms(bench)[-1] is None


def test_without_a_release_or_its_memory_there_is_nothing_to_drift(bench: AgentBench) -> None:
    for found in (None, release()):
        bench.post(events.ReleaseRead(found))
        assert [sample(bench, 1) for _ in range(4)] == [[]] * 4


# --- latency -----------------------------------------------------------------------------------------------------------------


def test_the_model_is_timed_when_it_is_due_and_nothing_else_runs(bench: AgentBench) -> None:
    bench.wait(HOUR - 1)
    assert not bench.done(do.TimeModel)
    assert bench.agent.due(bench.now) <= bench.now.mono + 1
    bench.command(JOB)
    bench.wait(1)
    assert not bench.done(do.TimeModel)
    bench.say(Done({}))
    bench.end()
    bench.wait(BUSY_RETRY_S)
    assert len(bench.done(do.TimeModel)) == 1


def test_a_model_that_stays_slow_is_an_alarm_until_it_is_fast(bench: AgentBench) -> None:
    bench.wait(HOUR)
    timed(bench, 6.0)
    assert problems(bench) == []
    bench.wait(600)
    assert len(bench.done(do.TimeModel)) == 2, "what may be an alarm is looked at again soon"
    timed(bench, 7.0)
    assert problems(bench) == ["the deployed model no longer fits its budget: p95 is 7 ms, over 5"]
    for seconds in (HOUR, 600):
        bench.wait(seconds)
        timed(bench, 4.0)
    assert problems(bench) == []
    assert [record.document["latency_ms_p95"] for record in bench.done(do.Record) if "latency_ms_p95" in record.document] == [
        6.0, 7.0, 4.0, 4.0,
    ]  # fmt: skip


def test_figures_of_another_release_or_of_a_busy_board_do_not_count(bench: AgentBench) -> None:
    for _ in range(3):
        bench.wait(HOUR)
        timed(bench, 9.0, "r0007-00000000")
    bench.command(JOB)
    for _ in range(3):
        bench.wait(600)
        timed(bench, 9.0)
    assert problems(bench) == []


def test_a_worker_that_does_not_come_to_an_end_is_ended(bench: AgentBench) -> None:
    bench.wait(HOUR)
    assert bench.agent.due(bench.now) <= bench.now.mono + 60
    bench.wait(60)
    assert bench.done(do.EndTiming) == [do.EndTiming()]
    bench.post(WorkerEnded(KEY, -9, "", False, ""))
    bench.wait(HOUR)
    assert len(bench.done(do.TimeModel)) == 2


def test_a_model_that_cannot_be_timed_is_a_line_in_the_log(bench: AgentBench) -> None:
    bench.wait(HOUR)
    bench.post(WorkerSaid(KEY, Failed(ErrorCode.SCHEMA, "there is no file")))
    assert "the deployed model cannot be timed: there is no file" in [log.text for log in bench.done(do.Log)]


def test_by_default_it_is_never_timed() -> None:
    bench = AgentBench()
    bench.post(events.Started())
    bench.post(events.ReleaseRead(SERVES))
    for _ in range(100):
        bench.wait(HOUR)
    assert not bench.done(do.TimeModel)


# --- lasting -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 500.0)), max_size=30))
def test_what_stands_changes_only_after_it_was_otherwise_for_long_enough(looks: list[tuple[bool, float]]) -> None:
    condition, mono, history = Sustained(600.0), 0.0, [(0.0, False)]
    for found, seconds in looks:
        before, mono = condition.stands, mono + seconds
        condition.see(found, mono)
        history.append((mono, found))
        if condition.stands != before:
            recent = [said for at, said in history if at >= mono - 600.0]
            assert set(recent) == {condition.stands}
            assert len(recent) >= 2


def test_one_look_alone_changes_nothing() -> None:
    condition = Sustained(1.0)
    condition.see(True, 1000.0)
    assert not condition.stands
    assert condition.unsettled


# --- runs of the agent's own ----------------------------------------------------------------------------------------------------


def own(bench: AgentBench) -> list[str]:
    """Return the labels of the runs that were started."""
    return [effect.command.label for effect in bench.done(do.Launch)]


@pytest.fixture
def auto() -> AgentBench:
    made = AgentBench(msgspec.structs.replace(CONFIG, drift=DriftSection(sustained_s=600.0, auto=True)))
    made.post(events.Started())
    made.post(events.ReleaseRead(SERVES))
    return made


def drift(bench: AgentBench) -> None:
    for _ in range(4):
        sample(bench, 30.0)


def test_without_auto_an_alarm_is_all(bench: AgentBench) -> None:
    drift(bench)
    assert problems(bench)
    assert own(bench) == []


def test_a_model_that_has_drifted_starts_one_run_and_no_second(auto: AgentBench) -> None:
    drift(auto)
    (label,) = own(auto)
    command = auto.journal[label]
    assert (command.op, command.request["requester"]) == ("specialize", "agent")
    assert command.request["cause"] == {"what": "drift", "release": SERVES.version}
    auto.say(Failed(ErrorCode.INFEASIBLE, "nothing fits"), label)
    auto.end(label)
    drift(auto)
    auto.restart()
    auto.post(events.ReleaseRead(SERVES))
    drift(auto)
    assert own(auto) == [label]


def test_another_model_that_drifts_starts_another_run(auto: AgentBench) -> None:
    drift(auto)
    (first,) = own(auto)
    auto.say(Done({}), first)
    auto.end(first)
    auto.post(events.ReleaseRead(msgspec.structs.replace(SERVES, version="r0009-99999999")))
    drift(auto)
    assert len(set(own(auto))) == 2


def test_a_run_of_the_agents_own_waits_for_the_one_that_is_there(auto: AgentBench) -> None:
    auto.command(JOB)
    drift(auto)
    assert own(auto) == [JOB]
    auto.say(Done({}), JOB)
    auto.end(JOB)
    sample(auto, 30.0)
    assert len(own(auto)) == 2
