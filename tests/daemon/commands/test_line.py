"""One job waits behind the one that runs; the next is refused."""

from __future__ import annotations

import pytest

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.protocol import Done, Failed, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands import line
from reconvene_agent.daemon.commands.line import MAX_WAITING
from support.agents import JOB, WALL, AgentBench

NEXT = "plan/2"
THIRD = "specialize/3"


@pytest.fixture
def busy(bench: AgentBench) -> AgentBench:
    """Return an agent with one job that runs and one that waits behind it."""
    bench.command(JOB)
    bench.command(NEXT)
    return bench


def launched(bench: AgentBench) -> list[str]:
    return [effect.command.label for effect in bench.done(do.Launch)]


def finish(bench: AgentBench, label: str = JOB) -> None:
    bench.say(Done({}), label)
    bench.end(label)


def test_the_second_waits_and_says_behind_what(busy: AgentBench) -> None:
    assert busy.statuses(NEXT) == ["scheduled"]
    assert busy.states(NEXT)[-1]["reason"] == f"waits behind {JOB}"
    assert busy.journal[NEXT].reason == f"waits behind {JOB}"
    assert launched(busy) == [JOB]


def test_the_third_is_refused_and_told_what_runs_and_what_waits(busy: AgentBench) -> None:
    busy.command(THIRD)
    assert busy.failure(THIRD) == "BUSY"
    last = busy.states(THIRD)[-1]
    assert last["reason"] == f"busy with {JOB}, and {NEXT} waits"
    assert last["error"]["retryable"] is True
    assert THIRD not in busy.journal


@pytest.mark.parametrize("failed", [False, True])
def test_it_starts_when_the_first_ends_whatever_its_end(busy: AgentBench, failed: bool) -> None:
    busy.say(Failed(ErrorCode.NO_DATA, "none") if failed else Done({}))
    busy.end()
    assert launched(busy) == [JOB, NEXT]
    assert busy.statuses(NEXT) == ["scheduled", "executing"]
    assert "reason" not in busy.states(NEXT)[-1]
    busy.command(THIRD)
    assert busy.states(THIRD)[-1]["reason"] == f"waits behind {NEXT}"


def test_what_was_refused_as_busy_can_be_sent_again(busy: AgentBench) -> None:
    busy.command(THIRD)
    finish(busy)
    busy.command(THIRD)
    assert busy.statuses(THIRD)[-1] == "scheduled"


def test_canceling_the_one_that_waits_makes_room_and_leaves_the_first_alone(busy: AgentBench) -> None:
    busy.command("cancel/1", {"id": "2"})
    assert busy.failure(NEXT) == "CANCELED"
    assert busy.states("cancel/1")[-1]["result"] == {"canceled": NEXT}
    assert not busy.done(do.AskWorker)
    busy.command(THIRD)
    finish(busy)
    assert launched(busy) == [JOB, THIRD]


def test_canceling_the_one_that_runs_starts_the_one_that_waits(busy: AgentBench) -> None:
    busy.command("cancel/1")
    busy.end()
    assert busy.failure(JOB) == "CANCELED"
    assert launched(busy) == [JOB, NEXT]


def test_the_one_that_waits_may_expire(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command(NEXT, expires_at=WALL + 60)
    assert bench.agent.due(bench.now) <= bench.now.mono + 60
    bench.wait(60)
    assert bench.failure(NEXT) == "EXPIRED"
    finish(bench)
    assert launched(bench) == [JOB]


def test_the_same_message_once_more_takes_no_other_place(busy: AgentBench) -> None:
    busy.command(NEXT)
    assert busy.statuses(NEXT) == ["scheduled", "scheduled"]
    finish(busy)
    finish(busy, NEXT)
    assert launched(busy) == [JOB, NEXT]


def test_after_a_restart_the_line_is_the_same(busy: AgentBench) -> None:
    busy.forget()
    busy.restart()
    assert launched(busy) == [JOB]
    busy.connect()
    assert busy.states(NEXT)[-1]["reason"] == f"waits behind {JOB}"
    busy.command(THIRD)
    assert busy.failure(THIRD) == "BUSY"
    finish(busy)
    assert launched(busy) == [JOB, NEXT]


def test_it_does_not_start_in_an_agent_that_stops_but_in_the_next(busy: AgentBench) -> None:
    busy.post(events.StopAsked())
    busy.say(Done({}))
    busy.end()
    assert launched(busy) == [JOB]
    assert busy.done(do.Quit)
    busy.restart()
    assert launched(busy) == [JOB, NEXT]


def test_a_line_that_cannot_be_journaled_is_none(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command(NEXT)
    bench.post(events.JournalFailed(NEXT, "full"))
    assert bench.failure(NEXT) == "NO_DISK"
    bench.command(THIRD)
    assert bench.statuses(THIRD) == ["scheduled"]


def test_where_the_board_may_not_work_the_line_is_as_short(bench: AgentBench) -> None:
    bench.fare(90.0)
    for label in (JOB, NEXT, THIRD):
        bench.command(label)
    assert bench.states(JOB)[-1]["reason"].startswith("paused: the board is too hot")
    assert bench.states(NEXT)[-1]["reason"] == f"waits behind {JOB}"
    assert bench.failure(THIRD) == "BUSY"
    bench.fare(50.0)
    finish(bench)
    assert launched(bench) == [JOB, NEXT]


# --- those that wait for their time ---------------------------------------------------------------------------------------------


def test_what_waits_for_its_time_has_no_place_in_line_until_it_comes(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command(THIRD, not_before=WALL + 60)
    bench.command(NEXT)
    assert bench.states(NEXT)[-1]["reason"] == f"waits behind {JOB}"
    bench.wait(60)
    assert bench.states(THIRD)[-1]["reason"] == f"waits behind {JOB}", "though another waits: it was promised"
    bench.command("plan/4")
    assert bench.failure("plan/4") == "BUSY"
    finish(bench)
    first = launched(bench)[-1]
    finish(bench, first)
    assert sorted(launched(bench)) == sorted([JOB, NEXT, THIRD])


def test_so_many_may_wait_for_their_time_and_no_more(bench: AgentBench) -> None:
    for number in range(MAX_WAITING):
        bench.command(f"{('plan', 'ping')[number % 2]}/{number}", not_before=WALL + 60)
    bench.command("ping/more", not_before=WALL + 60)
    assert bench.failure("ping/more") == "BUSY"
    assert bench.states("ping/more")[-1]["reason"] == f"busy: {MAX_WAITING} commands wait for their time already"
    bench.command("ping/now")
    assert bench.statuses("ping/now") == ["successful"]


def test_so_many_bytes_may_wait_and_no_more(bench: AgentBench) -> None:
    labels = [f"plan/{number}" for number in range(6)]
    for label in labels:
        bench.command(label, not_before=WALL + 60, note="x" * 60_000)
    waiting = [label for label in labels if label in bench.journal]
    assert len(waiting) == line.MAX_WAITING_BYTES // 60_000
    assert {bench.failure(label) for label in labels if label not in waiting} == {"BUSY"}


def test_a_suspended_job_keeps_its_place_over_a_restart(busy: AgentBench) -> None:
    busy.post(events.StopAsked())
    busy.say(Suspended())
    busy.end()
    busy.forget()
    busy.restart()
    assert launched(busy) == [JOB]
