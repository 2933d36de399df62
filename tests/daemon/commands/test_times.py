from __future__ import annotations

import pytest

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status
from reconvene_agent.core.protocol import Done, Failed, Ready
from reconvene_agent.daemon import effects as do
from support.agents import JOB, WALL, AgentBench


@pytest.mark.parametrize("moment", [rfc3339(WALL - 1), WALL - 1, 0])
def test_what_expired_on_its_way_is_refused(bench: AgentBench, moment: str | float) -> None:
    bench.command(JOB, expires_at=moment)
    assert bench.failure(JOB) == "EXPIRED"
    assert not bench.done(do.Launch)


def test_what_expires_later_starts_now(bench: AgentBench) -> None:
    bench.command(JOB, expires_at=rfc3339(WALL + 60))
    assert bench.statuses(JOB) == ["scheduled", "executing"]


def test_a_command_waits_for_its_time(bench: AgentBench) -> None:
    bench.command(JOB, not_before=rfc3339(WALL + 60))
    assert bench.states(JOB)[-1]["reason"] == "waits for its not_before"
    assert bench.agent.due(bench.now) <= bench.now.mono + 60
    bench.wait(59)
    assert bench.statuses(JOB) == ["scheduled"]
    bench.wait(1)
    assert bench.statuses(JOB) == ["scheduled", "executing"]
    assert "reason" not in bench.states(JOB)[-1]


def test_the_agent_wakes_up_in_time_for_a_waiting_command(bench: AgentBench) -> None:
    bench.wait(600)
    bench.command(JOB, not_before=bench.now.wall + 7)
    assert bench.agent.due(bench.now) == pytest.approx(bench.now.mono + 7)


def test_a_command_that_expires_while_it_waits_is_not_started(bench: AgentBench) -> None:
    bench.command("plan/1")
    bench.command(JOB, not_before=WALL + 60, expires_at=WALL + 120)
    bench.wait(130)
    assert bench.failure(JOB) == "EXPIRED"
    bench.say(Done({}), "plan/1")
    bench.end("plan/1")
    assert [launch.command.label for launch in bench.done(do.Launch)] == ["plan/1"]


def test_a_command_whose_time_comes_while_another_runs_starts_after_it(bench: AgentBench) -> None:
    bench.command("plan/1")
    bench.command(JOB, not_before=WALL + 60)
    bench.wait(100)
    assert [state["reason"] for state in bench.states(JOB)] == ["waits for its not_before", "waits behind plan/1"]
    bench.say(Done({}), "plan/1")
    bench.end("plan/1")
    assert bench.statuses(JOB) == ["scheduled", "scheduled", "executing"]


def test_waiting_commands_start_in_the_order_they_came(bench: AgentBench) -> None:
    for number in ("3", "1", "2"):
        bench.command(f"plan/{number}", not_before=WALL + 60)
        bench.wait(1)
    bench.wait(60)
    for number in ("3", "1", "2"):
        bench.say(Done({}), f"plan/{number}")
        bench.end(f"plan/{number}")
    assert [launch.command.id for launch in bench.done(do.Launch)] == ["3", "1", "2"]


@pytest.mark.parametrize("field", ["expires_at", "not_before"])
def test_without_a_clock_a_command_that_carries_a_time_is_deferred(field: str) -> None:
    bench = AgentBench(synchronized=False)
    bench.connect()
    bench.command(JOB, **{field: 1.0})
    assert bench.statuses(JOB) == ["scheduled"]
    assert "CLOCK_UNSYNCED" in bench.states(JOB)[-1]["reason"]
    assert bench.journal[JOB].status is Status.SCHEDULED
    assert bench.agent.due(bench.now) <= bench.now.mono + 5.0


def test_a_deferred_command_starts_once_the_clock_is_right() -> None:
    bench = AgentBench(synchronized=False)
    bench.connect()
    bench.command(JOB, not_before=WALL - 5, expires_at=WALL + 60)
    bench.wait(5)
    assert bench.statuses(JOB) == ["scheduled"]
    bench.synchronize()
    bench.wait(5)
    assert bench.statuses(JOB) == ["scheduled", "executing"]


def test_a_deferred_command_that_turns_out_to_be_late_expires() -> None:
    bench = AgentBench(synchronized=False)
    bench.connect()
    bench.command(JOB, expires_at=WALL + 60)
    bench.synchronize(WALL + 10_000)
    bench.wait(5)
    assert bench.failure(JOB) == "EXPIRED"
    assert not bench.done(do.Launch)


def test_without_a_clock_a_command_that_carries_no_time_just_runs() -> None:
    bench = AgentBench(synchronized=False)
    bench.connect()
    bench.command(JOB, timeout_s=5)
    assert bench.statuses(JOB)[-1] == "executing"


def test_a_ping_can_wait_too(bench: AgentBench) -> None:
    bench.command("ping/1", not_before=WALL + 60)
    assert bench.statuses("ping/1") == ["scheduled"]
    bench.wait(60)
    assert bench.statuses("ping/1") == ["scheduled", "successful"]


def test_a_command_that_takes_too_long_is_stopped(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=30)
    bench.say(Ready(1, "", 1))
    assert bench.agent.due(bench.now) <= bench.now.mono + 30
    bench.wait(29)
    assert not bench.done(do.AskWorker)
    bench.wait(1)
    assert bench.done(do.AskWorker) == [do.AskWorker("cancel")]
    bench.say(Failed(ErrorCode.CANCELED, "canceled on request"))
    bench.end()
    assert bench.failure(JOB) == "TIMED_OUT"


def test_a_result_that_comes_just_after_the_time_counts(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=30)
    bench.wait(30)
    bench.say(Done({}))
    bench.end()
    assert bench.statuses(JOB)[-1] == "successful"


def test_nothing_is_due_again_and_again_while_a_finished_worker_leaves(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=30)
    bench.say(Done({}))
    bench.wait(31)
    assert bench.agent.due(bench.now) > bench.now.mono
