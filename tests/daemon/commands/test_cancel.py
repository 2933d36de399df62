from __future__ import annotations

import pytest

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status
from reconvene_agent.core.protocol import Done, Failed, Ready, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import JOB, WALL, AgentBench


@pytest.mark.parametrize("args", [{}, {"id": "1"}])
def test_a_running_command_is_canceled(bench: AgentBench, args: dict[str, str]) -> None:
    bench.command(JOB)
    bench.command("cancel/9", args)
    assert bench.states("cancel/9")[-1]["result"] == {"canceled": JOB}
    assert bench.done(do.AskWorker) == [do.AskWorker("cancel")]
    assert bench.statuses(JOB)[-1] == "executing", "until it has really stopped"
    bench.say(Failed(ErrorCode.CANCELED, "canceled on request"))
    bench.end()
    assert bench.failure(JOB) == "CANCELED"


def test_a_worker_that_does_not_listen_is_ended(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Ready(1, "", 1))
    bench.command("cancel/9")
    bench.wait(10)
    assert bench.done(do.EndWorker) == [do.EndWorker(hard=False)]
    bench.wait(5)
    assert bench.done(do.EndWorker) == [do.EndWorker(hard=False), do.EndWorker(hard=True)]
    bench.wait(1000)
    assert len(bench.done(do.EndWorker)) == 2
    bench.end(returncode=-9)
    assert bench.failure(JOB) == "CANCELED"


def test_a_waiting_command_is_canceled_at_once(bench: AgentBench) -> None:
    bench.command(JOB, not_before=WALL + 60)
    bench.command("cancel/9", {"id": "1"})
    assert bench.failure(JOB) == "CANCELED"
    assert bench.states("cancel/9")[-1]["result"] == {"canceled": JOB}
    bench.wait(100)
    assert not bench.done(do.Launch)


def test_a_waiting_cancel_stops_what_is_due_at_the_same_moment(bench: AgentBench) -> None:
    bench.command("cancel/9", {"id": "1"}, not_before=WALL + 60)
    bench.command(JOB, not_before=WALL + 60)
    bench.wait(60)
    assert bench.failure(JOB) == "CANCELED"
    assert not bench.done(do.Launch)


@pytest.mark.parametrize("args", [{}, {"id": "nobody"}])
def test_canceling_nothing_is_no_mistake(bench: AgentBench, args: dict[str, str]) -> None:
    bench.command("cancel/9", args)
    assert bench.states("cancel/9")[-1]["result"] == {"canceled": None}


def test_what_has_ended_is_not_canceled(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Done({}))
    bench.command("cancel/8", {"id": "1"})
    assert bench.states("cancel/8")[-1]["result"] == {"canceled": None}
    bench.end()
    bench.command("cancel/9", {"id": "1"})
    assert bench.states("cancel/9")[-1]["result"] == {"canceled": None}
    assert bench.statuses(JOB)[-1] == "successful"


def test_a_cancel_that_bears_the_id_of_what_it_stops_does_not_stop_itself(bench: AgentBench) -> None:
    bench.command("cancel/1", {"id": "1"})
    assert bench.statuses("cancel/1") == ["successful"]
    assert bench.states("cancel/1")[-1]["result"] == {"canceled": None}
    bench.command(JOB)
    bench.command("cancel/2", {"id": "1"})
    assert bench.states("cancel/2")[-1]["result"] == {"canceled": JOB}


def test_canceling_twice_is_the_same_as_once(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("cancel/8")
    bench.command("cancel/9")
    assert bench.states("cancel/9")[-1]["result"] == {"canceled": JOB}
    assert bench.done(do.AskWorker) == [do.AskWorker("cancel")]


@pytest.mark.parametrize("answer", [Suspended(), None])
def test_what_is_being_suspended_can_still_be_canceled(bench: AgentBench, answer: Suspended | None) -> None:
    bench.command(JOB)
    bench.post(events.StopAsked())
    if answer is not None:
        bench.say(answer)
    bench.command("cancel/9")
    assert bench.states("cancel/9")[-1]["result"] == {"canceled": JOB}
    bench.end()
    assert bench.failure(JOB) == "CANCELED"
    assert bench.journal[JOB].status is Status.FAILED, "it must not go on after a restart"
