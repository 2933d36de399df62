from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status, Step
from reconvene_agent.core.protocol import Done, Progress, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands.running import PUBLISH_EVERY_S, REVISIONS_AHEAD
from support.agents import JOB, WALL, AgentBench, command_topic, stored


def test_after_a_crash_the_run_goes_on(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Progress(Step.TRAIN, 0.5))
    progress = bench.states(JOB)[-1]["progress"]
    bench.forget()
    bench.restart()
    (launch,) = bench.done(do.Launch)
    assert (launch.command.attempt, launch.command.label) == (2, JOB)
    assert launch.command.progress == progress
    bench.connect()
    assert bench.statuses(JOB)[-1] == "executing"


def test_attempts_are_capped(bench: AgentBench) -> None:
    bench.command(JOB)
    for _ in range(3):
        bench.forget()
        bench.restart()
    assert not bench.done(do.Launch)
    assert bench.failure(JOB) == "INTERRUPTED"
    assert bench.states(JOB)[-1]["attempt"] == 3
    assert "3 of 3 attempts" in bench.states(JOB)[-1]["reason"]


def test_a_waiting_command_waits_on_after_a_restart(bench: AgentBench) -> None:
    bench.command(JOB, not_before=WALL + 60)
    bench.restart()
    assert not bench.done(do.Launch)
    bench.wait(60)
    assert [launch.command.label for launch in bench.done(do.Launch)] == [JOB]


def test_at_the_start_an_interrupted_run_comes_before_those_that_wait() -> None:
    bench = AgentBench(known=[stored(Status.SCHEDULED, 0, "plan/1"), stored(label="plan/2", status=Status.EXECUTING)])
    bench.post(events.Started())
    assert [launch.command.label for launch in bench.done(do.Launch)] == ["plan/2"]
    bench.say(Done({}), "plan/2")
    bench.end("plan/2")
    assert [launch.command.label for launch in bench.done(do.Launch)] == ["plan/2", "plan/1"]


def test_only_one_of_two_interrupted_runs_goes_on() -> None:
    bench = AgentBench(known=[stored(label="plan/1"), stored(label="plan/2")])
    bench.post(events.Started())
    assert [launch.command.label for launch in bench.done(do.Launch)] == ["plan/1"]
    assert bench.journal["plan/2"].error is not None
    assert bench.journal["plan/2"].error.code is ErrorCode.INTERRUPTED


def test_an_orderly_stop_suspends_and_costs_no_attempt(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.StopAsked())
    assert bench.done(do.AskWorker) == [do.AskWorker("suspend")]
    assert not bench.done(do.Quit)
    bench.say(Suspended())
    bench.end()
    assert bench.states(JOB)[-1]["status"] == "executing"
    assert bench.states(JOB)[-1]["reason"] == "suspended"
    assert bench.journal[JOB].attempt == 0
    assert len(bench.done(do.Quit)) == 1
    bench.forget()
    bench.restart()
    assert [launch.command.attempt for launch in bench.done(do.Launch)] == [1]
    assert "reason" not in bench.states(JOB)[-1]


def test_any_number_of_orderly_stops_is_fine(bench: AgentBench) -> None:
    bench.command(JOB)
    for _ in range(10):
        bench.post(events.StopAsked())
        bench.end(returncode=-15)
        bench.forget()
        bench.restart()
        assert len(bench.done(do.Launch)) == 1


def test_a_worker_that_finishes_while_it_is_suspended_has_finished(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.StopAsked())
    bench.say(Done({"x": 1}))
    bench.end()
    assert bench.statuses(JOB)[-1] == "successful"


def test_a_retained_state_that_the_journal_does_not_know_was_interrupted(bench: AgentBench) -> None:
    state = {"status": "executing", "rev": 7, "args": {"a": 1}, "x": 2}
    bench.receive(command_topic(JOB), msgspec.json.encode(state))
    assert bench.failure(JOB) == "INTERRUPTED"
    answer = bench.states(JOB)[-1]
    assert (answer["rev"], answer["args"], answer["x"]) == (8, {"a": 1}, 2)
    assert not bench.done(do.Launch)


@pytest.mark.parametrize("status", ["successful", "failed"])
def test_a_retained_end_that_the_journal_does_not_know_is_left_alone(bench: AgentBench, status: str) -> None:
    bench.receive(command_topic(JOB), msgspec.json.encode({"status": status, "rev": 7}))
    assert bench.effects == []


@pytest.mark.parametrize("rev", [-1, 2**53, 2**63, 10**30, True])
def test_a_revision_that_makes_no_sense_does_no_harm(bench: AgentBench, rev: int) -> None:
    bench.command("plan/1")
    for label in ("plan/1", "plan/2"):
        bench.receive(command_topic(label), msgspec.json.encode({"status": "executing", "rev": rev}))
    bench.say(Done({}), "plan/1")
    bench.end("plan/1")
    assert bench.statuses("plan/1")[-1] == "successful"
    assert bench.failure("plan/2") == "INTERRUPTED"
    assert max(state["rev"] for state in bench.states("plan/1") + bench.states("plan/2")) <= 2**53 + 5


def test_commands_of_a_newer_version_are_left_aside() -> None:
    strange = stored(Status.SCHEDULED, label="teleport/1")
    unreadable = stored(Status.SCHEDULED, label="plan/2", request={"timeout_s": "a while"})
    bench = AgentBench(known=[strange, unreadable, stored(Status.SCHEDULED, label="plan/3")])
    bench.post(events.Started())
    assert [launch.command.label for launch in bench.done(do.Launch)] == ["plan/3"]


def test_a_canceled_run_stays_canceled_though_the_agent_crashes_before_its_worker_has_left(bench: AgentBench) -> None:
    bench.command(JOB)
    effects = bench.command("cancel/1")
    (save,) = [effect for effect in effects if isinstance(effect, do.Save)]
    assert [command.label for command in save.commands] == ["cancel/1", JOB], "both in one write, or neither"
    assert effects.index(save) < effects.index(do.AskWorker("cancel"))
    before = bench.states(JOB)[-1]["rev"]
    bench.forget()
    bench.restart()
    assert not bench.done(do.Launch)
    assert bench.failure(JOB) == "CANCELED"
    assert bench.states(JOB)[-1]["rev"] > before


def test_a_run_whose_time_was_over_stays_so_though_the_agent_crashes(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=30)
    bench.wait(30)
    bench.forget()
    bench.restart()
    assert not bench.done(do.Launch)
    assert bench.failure(JOB) == "TIMED_OUT"


def timed_out_after(bench: AgentBench, seconds: float) -> bool:
    """Whether the job's time is over after so many seconds, and not before."""
    bench.wait(seconds - 0.1)
    early = do.AskWorker("cancel") in bench.effects
    bench.wait(0.1)
    return not early and do.AskWorker("cancel") in bench.effects


def test_time_that_was_used_up_before_an_orderly_stop_stays_used_up(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=100)
    bench.wait(70)
    bench.post(events.StopAsked())
    bench.say(Suspended())
    bench.end()
    bench.restart()
    assert timed_out_after(bench, 30)


def test_time_that_was_used_up_before_a_crash_stays_used_up_to_a_minute(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=1000)
    for _ in range(9):
        bench.wait(61)
        bench.say(Progress(Step.TRAIN, 0.5))
    bench.wait(20)
    bench.restart()
    assert timed_out_after(bench, 1000 - 9 * 61)


def test_a_pause_uses_up_time_over_an_orderly_stop_too(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=100)
    bench.fare(90.0)
    bench.say(Suspended())
    bench.end()
    bench.wait(60)
    bench.post(events.StopAsked())
    bench.restart()
    bench.wait(34.9)
    assert bench.statuses(JOB)[-1] == "executing"
    bench.wait(0.1)
    assert bench.failure(JOB) == "THERMAL"


@given(st.lists(st.tuples(st.sampled_from(Step), st.integers(0, 2 * REVISIONS_AHEAD)), max_size=4))
def test_no_revision_after_a_crash_is_older_than_one_before(reports: list[tuple[Step, int]]) -> None:
    bench = AgentBench()
    bench.post(events.Started())
    bench.connect()
    bench.command(JOB)
    for step, count in reports:
        for _ in range(count):
            bench.say(Progress(step, 0.5))
        bench.wait(PUBLISH_EVERY_S)
        bench.say(Progress(step, 0.5))
    before = [state["rev"] for state in bench.states(JOB)]
    bench.forget()
    bench.restart()
    bench.say(Progress(Step.PROBE, 0.5))
    bench.connect()
    assert min(state["rev"] for state in bench.states(JOB)) > max(before)
