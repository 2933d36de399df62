"""Commands on a board that is too hot or weak, outside of its training windows, or paused by a word."""

from __future__ import annotations

import pytest

from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Done, Progress, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.board.pauses import CALM_S, FRESH_S, LOOK_EVERY_S
from support.agents import JOB, AgentBench
from support.pausing import alarm, launches, status, suspend, told


@pytest.fixture
def hot(bench: AgentBench) -> AgentBench:
    """Return an agent whose job is paused in its training by heat."""
    bench.command(JOB)
    bench.say(Progress(Step.TRAIN, 0.5))
    bench.fare(85.0)
    suspend(bench)
    return bench


# --- heat --------------------------------------------------------------------------------------------------------------------


def test_a_hot_board_suspends_its_job_which_goes_on_by_itself_when_it_is_cool(hot: AgentBench) -> None:
    last = hot.states(JOB)[-1]
    assert last["status"] == "executing"
    assert last["reason"] == "paused: the board is too hot: 85 °C, over 80; goes on below 70"
    assert (status(hot)["state"], status(hot)["job"]["note"]) == ("paused", last["reason"])
    assert status(hot)["job"]["step"] == "train"
    assert launches(hot) == 1
    for degrees in (79.0, 75.0, 70.0):
        hot.fare(degrees)
        assert launches(hot) == 1
    hot.fare(65.0)
    assert [launch.command.attempt for launch in hot.done(do.Launch)] == [1, 1], "a pause costs no attempt"
    assert "reason" not in hot.states(JOB)[-1]
    assert told(hot) == [("paused", "heat"), ("resumed", None)]
    hot.say(Done({}))
    hot.end()
    assert hot.statuses(JOB)[-1] == "successful"


def test_a_job_that_is_being_paused_says_so_at_once(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.fare(85.0)
    assert bench.states(JOB)[-1]["reason"].startswith("paused: the board is too hot")
    assert bench.journal[JOB].reason.startswith("paused: ")
    assert status(bench)["job"]["note"].startswith("paused: ")
    bench.wait(LOOK_EVERY_S)
    assert bench.done(do.AskWorker) == [do.AskWorker("suspend")], "it is asked once"


def test_heat_is_an_alarm_as_long_as_it_lasts(bench: AgentBench) -> None:
    bench.post(events.Looked(bench.strain.__class__(85.0)))
    sounded = alarm(bench, "over_temperature")
    assert sounded is not None
    assert sounded["severity"] == "major"
    assert status(bench)["problems"] == [sounded["text"]]
    assert status(bench)["state"] == "idle", "nothing waits for it"
    bench.post(events.Looked(bench.strain.__class__(65.0)))
    assert alarm(bench, "over_temperature") is None


def test_no_worker_starts_on_a_hot_board(bench: AgentBench) -> None:
    bench.fare(85.0)
    bench.wait(1000)
    bench.command(JOB)
    assert bench.statuses(JOB) == ["scheduled", "scheduled"]
    assert bench.states(JOB)[-1]["reason"].startswith("paused: ")
    assert (status(bench)["state"], status(bench)["job"]["status"]) == ("paused", "scheduled")
    bench.fare(60.0)
    assert bench.statuses(JOB)[-1] == "executing"
    assert told(bench) == [("paused", "heat"), ("resumed", None)]


def test_a_board_that_has_become_hot_unseen_is_looked_at_before_a_worker_starts(bench: AgentBench) -> None:
    bench.wait(FRESH_S + 1)
    bench.strain = bench.strain.__class__(90.0)
    bench.command(JOB)
    assert not launches(bench)
    assert bench.statuses(JOB)[-1] == "scheduled"


def test_the_board_is_looked_at_every_few_seconds_only_while_something_runs_or_waits(bench: AgentBench) -> None:
    for _ in range(60):
        bench.wait(1)
    assert not bench.done(do.Look)
    bench.command(JOB)
    bench.forget()
    for _ in range(60):
        bench.wait(1)
        assert bench.agent.due(bench.now) <= bench.now.mono + LOOK_EVERY_S
    assert len(bench.done(do.Look)) == 60 / LOOK_EVERY_S
    bench.say(Done({}))
    bench.end()
    bench.forget()
    bench.wait(60)
    assert not bench.done(do.Look)


def test_many_jobs_that_wait_start_one_after_the_other(bench: AgentBench) -> None:
    bench.fare(85.0)
    for number in (1, 2):
        bench.command(f"plan/{number}")
    bench.fare(60.0)
    assert launches(bench) == 1
    bench.say(Done({}), "plan/1")
    bench.end("plan/1")
    assert [launch.command.label for launch in bench.done(do.Launch)] == ["plan/1", "plan/2"]


def test_another_job_waits_behind_one_that_is_paused_and_a_third_is_refused(hot: AgentBench) -> None:
    hot.command("plan/1")
    assert hot.states("plan/1")[-1]["reason"] == f"waits behind {JOB}"
    hot.command("plan/2")
    assert hot.failure("plan/2") == "BUSY"


# --- under-voltage -----------------------------------------------------------------------------------------------------------


def test_a_weak_supply_pauses_until_it_has_sufficed_for_a_while(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.fare(50.0, under_voltage=True)
    suspend(bench)
    assert told(bench) == [("paused", "voltage")]
    assert alarm(bench, "under_voltage") is not None
    bench.fare(50.0, under_voltage=False)
    assert launches(bench) == 1
    for _ in range(int(CALM_S / LOOK_EVERY_S)):
        bench.fare(50.0, under_voltage=False)
    assert launches(bench) == 2
    assert alarm(bench, "under_voltage") is None


def test_one_pause_may_follow_upon_another(hot: AgentBench) -> None:
    hot.fare(65.0, under_voltage=True)
    assert launches(hot) == 1
    assert told(hot) == [("paused", "heat"), ("paused", "voltage")]
    assert "under-voltage" in hot.states(JOB)[-1]["reason"]


# --- cancel, shutdown, restart, timeout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [{}, {"id": "1"}])
def test_a_paused_job_can_be_canceled(hot: AgentBench, args: dict[str, str]) -> None:
    hot.command("cancel/9", args)
    assert hot.states("cancel/9")[-1]["result"] == {"canceled": JOB}
    assert hot.failure(JOB) == "CANCELED"
    assert hot.done(do.Clean)
    hot.fare(50.0)
    assert launches(hot) == 1
    hot.command("plan/1")
    assert hot.statuses("plan/1")[-1] == "executing", "the place is free"


def test_a_job_can_be_canceled_while_it_is_being_paused(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.fare(85.0)
    bench.command("cancel/1")
    bench.say(Suspended())
    bench.end()
    assert bench.failure(JOB) == "CANCELED"


def test_a_job_that_waits_for_the_board_can_be_canceled(bench: AgentBench) -> None:
    bench.fare(85.0)
    bench.command(JOB)
    bench.command("cancel/1", {"id": "1"})
    assert bench.failure(JOB) == "CANCELED"


def test_the_agent_stops_at_once_while_a_job_is_paused(hot: AgentBench) -> None:
    hot.post(events.StopAsked())
    assert len(hot.done(do.Quit)) == 1
    assert hot.journal[JOB].status.value == "executing"


def test_the_agent_stops_while_a_job_is_being_paused(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.fare(85.0)
    bench.post(events.StopAsked())
    assert not bench.done(do.Quit)
    bench.say(Suspended())
    bench.end()
    assert len(bench.done(do.Quit)) == 1


@pytest.mark.parametrize(("degrees", "started"), [(85.0, 0), (75.0, 1), (60.0, 1)])
def test_after_a_restart_the_board_is_looked_at_before_a_paused_job_goes_on(
    hot: AgentBench, degrees: float, started: int
) -> None:
    hot.forget()
    hot.strain = hot.strain.__class__(degrees)
    hot.restart()
    assert launches(hot) == started
    hot.fare(60.0)
    assert [launch.command.attempt for launch in hot.done(do.Launch)] == [1]


def test_a_paused_job_does_not_outlive_its_timeout(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=100)
    bench.wait(45)
    bench.fare(85.0)
    suspend(bench)
    bench.wait(49)
    assert bench.statuses(JOB)[-1] == "executing"
    assert bench.agent.due(bench.now) <= bench.now.mono + 1
    bench.wait(1)
    assert bench.failure(JOB) == "THERMAL"
    assert bench.states(JOB)[-1]["reason"].startswith("the command's timeout_s was used up while it was paused: the board is too")


def test_a_job_that_went_on_after_a_pause_keeps_its_first_deadline(bench: AgentBench) -> None:
    bench.command(JOB, timeout_s=100)
    bench.fare(85.0)
    suspend(bench)
    bench.fare(60.0)
    bench.wait(90)
    assert bench.done(do.AskWorker)[-1] == do.AskWorker("cancel")
    bench.end()
    assert bench.failure(JOB) == "TIMED_OUT"


@pytest.mark.parametrize(("fare", "code"), [((85.0, False), "THERMAL"), ((50.0, True), "EXPIRED")])
def test_a_command_that_expires_while_it_waits_says_for_what(bench: AgentBench, fare: tuple[float, bool], code: str) -> None:
    bench.fare(*fare)
    bench.command(JOB, expires_at=bench.now.wall + 60)
    bench.wait(61)
    assert bench.failure(JOB) == code
    assert "expired before it could start while it was paused: " in bench.states(JOB)[-1]["reason"]


# --- pause and resume on command ---------------------------------------------------------------------------------------------


def test_pause_suspends_the_job_and_resume_lets_it_go_on(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("pause/1")
    assert bench.states("pause/1")[-1]["result"] == {"paused": "on command (pause/1)"}
    suspend(bench)
    assert bench.states(JOB)[-1]["reason"] == "paused: on command (pause/1)"
    bench.wait(1000)
    assert launches(bench) == 1
    bench.command("resume/1")
    assert bench.states("resume/1")[-1]["result"] == {"paused": None}
    bench.wait(LOOK_EVERY_S)
    assert launches(bench) == 2
    assert ("paused", "command") in told(bench)
    assert told(bench)[-1] == ("resumed", None)


def test_pause_is_on_disk_before_it_is_told_and_outlives_a_restart(bench: AgentBench) -> None:
    effects = bench.command("pause/1")
    kept = effects.index(do.KeepPause("pause/1"))
    published = [index for index, effect in enumerate(effects) if isinstance(effect, do.Publish)]
    assert kept < min(published)
    bench.restart()
    bench.connect()
    bench.command(JOB)
    assert not launches(bench)
    assert status(bench)["state"] == "paused"
    bench.command("resume/1")
    assert bench.ordered_by == ""
    bench.wait(LOOK_EVERY_S)
    assert launches(bench) == 1


def test_an_agent_that_is_paused_says_so_without_any_job(bench: AgentBench) -> None:
    bench.command("pause/1")
    assert (status(bench)["state"], status(bench)["paused"], status(bench)["job"]) == ("paused", "on command (pause/1)", None)
    assert status(bench)["problems"] == [], "nothing is wrong with it"


def test_pausing_twice_and_resuming_twice_is_no_mistake(bench: AgentBench) -> None:
    for label in ("pause/1", "pause/2", "resume/1", "resume/2"):
        bench.command(label)
        assert bench.statuses(label) == ["successful"]
    assert bench.done(do.KeepPause) == [do.KeepPause("pause/1"), do.KeepPause("")]


def test_resume_tells_what_still_holds(bench: AgentBench) -> None:
    bench.command("pause/1")
    bench.fare(85.0)
    bench.command("resume/1")
    assert "too hot" in bench.states("resume/1")[-1]["result"]["paused"]


def test_the_local_socket_pauses_too(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.PauseAsked(7, pause=True))
    assert bench.done(do.Answer) == [do.Answer(7, {"paused": "on command (command line)"})]
    suspend(bench)
    bench.post(events.PauseAsked(8, pause=False))
    assert bench.done(do.Answer)[-1] == do.Answer(8, {"paused": None})
    bench.wait(LOOK_EVERY_S)
    assert launches(bench) == 2
