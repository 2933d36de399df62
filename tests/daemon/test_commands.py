from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status, Step, digest_of
from reconvene_agent.core.protocol import Done, Failed, Happening, Progress, Ready, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import TOPICS, WALL, AgentBench, command_topic, key, states

JOB = "specialize/1"


@pytest.fixture
def bench() -> AgentBench:
    """Return a connected agent that has told the fleet about itself."""
    made = AgentBench()
    made.post(events.Started())
    made.connect()
    made.forget()
    return made


def stored(status: Status = Status.EXECUTING, attempt: int = 1, label: str = JOB, **fields: Any) -> Command:
    op, _, command_id = label.partition("/")
    request = {"args": {}, **fields.pop("request", {})}
    return Command(op, command_id, request, digest_of(request), WALL, WALL, status, rev=2, attempt=attempt, **fields)


# --- a whole life ------------------------------------------------------------------------------------------------------------


def test_a_run_from_beginning_to_end(bench: AgentBench) -> None:
    bench.command(JOB, {"sparsity": 0.9}, requester="me", **{"x-trace": 5})
    assert bench.statuses(JOB) == ["scheduled", "executing"]
    assert [launch.command.label for launch in bench.done(do.Launch)] == [JOB]
    bench.say(Ready(1, "0.1.0", 1))
    bench.say(Progress(Step.TRAIN, 0.5, "epoch 1"))
    bench.say(Done({"answer": 42}))
    assert bench.statuses(JOB)[-1] == "executing", "it ends when the worker is gone"
    bench.end()
    last = bench.states(JOB)[-1]
    assert (last["status"], last["result"], last["progress"]) == ("successful", {"answer": 42}, 1.0)
    assert (last["args"], last["requester"], last["x-trace"]) == ({"sparsity": 0.9}, "me", 5)
    assert bench.done(do.Clean) == [do.Clean(key(JOB))]
    assert bench.agent.status(bench.now)["state"] == "idle"


def test_revisions_grow_with_every_state(bench: AgentBench) -> None:
    bench.command(JOB)
    for step in Step:
        bench.say(Progress(step, 0.5))
    bench.say(Done({}))
    bench.end()
    revisions = [state["rev"] for state in bench.states(JOB)]
    assert len(revisions) == 9
    assert revisions == sorted(set(revisions))


def test_the_journal_comes_first_then_the_act_then_the_word(bench: AgentBench) -> None:
    effects = bench.command(JOB)
    kinds = [type(effect).__name__ for effect in effects]
    assert kinds[:6] == ["Log", "Save", "Publish", "Save", "Launch", "Publish"]
    saves = [effect for effect in effects if isinstance(effect, do.Save)]
    assert [(save.command.status, save.first) for save in saves] == [(Status.SCHEDULED, True), (Status.EXECUTING, False)]


def test_a_plan_is_a_job_of_its_own(bench: AgentBench) -> None:
    bench.command("plan/7")
    bench.say(Progress(Step.PLAN, 0.5), "plan/7")
    assert bench.states("plan/7")[-1]["progress"] == 0.5
    bench.say(Done({"chosen": None}), "plan/7")
    bench.end("plan/7")
    assert bench.statuses("plan/7")[-1] == "successful"


def test_the_last_result_is_part_of_the_twin(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.end(returncode=3)
    (twin,) = [effect for effect in bench.done(do.Publish) if effect.topic == TOPICS.twin("last_result")]
    document = msgspec.json.decode(twin.payload)
    assert (document["op"], document["id"], document["status"]) == ("specialize", "1", "failed")
    assert document["error"]["code"] == "INTERNAL"


def test_a_ping_is_answered_at_once_and_starts_nothing(bench: AgentBench) -> None:
    bench.command("ping/1")
    assert bench.statuses("ping/1") == ["successful"]
    assert bench.states("ping/1")[-1]["result"] == {"state": "idle", "version": "0.1.0"}
    assert not bench.done(do.Launch)
    assert bench.journal["ping/1"].status is Status.SUCCESSFUL


def test_a_ping_tells_what_runs(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("ping/1")
    assert bench.states("ping/1")[-1]["result"]["state"] == "specialize"


# --- the same command again --------------------------------------------------------------------------------------------------


def test_the_same_command_again_only_repeats_its_state(bench: AgentBench) -> None:
    bench.command(JOB, {"sparsity": 0.5})
    bench.forget()
    bench.command(JOB, {"sparsity": 0.5})
    assert bench.statuses(JOB) == ["executing"]
    assert not bench.done(do.Launch)
    assert not bench.done(do.Save)


def test_another_order_of_its_fields_is_the_same_command(bench: AgentBench) -> None:
    bench.receive(command_topic(JOB), b'{"status":"init","args":{"sparsity":0.5,"bundle":"b"},"requester":"me"}')
    bench.forget()
    bench.receive(command_topic(JOB), b'{"requester":"me","args":{"bundle":"b","sparsity":0.5},"status":"init"}')
    assert bench.statuses(JOB) == ["executing"]


def test_the_same_id_for_something_else_is_refused_and_the_first_one_stays(bench: AgentBench) -> None:
    bench.command(JOB, {"sparsity": 0.5})
    bench.forget()
    bench.command(JOB, {"sparsity": 0.9})
    refused, restored = bench.done(do.Publish)
    assert msgspec.json.decode(refused.payload)["error"]["code"] == "ID_REUSED"
    assert not refused.retain, "the answer passes by"
    assert (restored.retain, msgspec.json.decode(restored.payload)["args"]) == (True, {"sparsity": 0.5})
    bench.say(Done({}))
    bench.end()
    assert bench.statuses(JOB)[-1] == "successful"


def test_the_same_id_under_another_operation_is_another_command(bench: AgentBench) -> None:
    bench.command("ping/1")
    bench.command("plan/1")
    assert bench.statuses("plan/1")[-1] == "executing"


def test_garbage_under_a_known_id_does_not_lose_its_state(bench: AgentBench) -> None:
    bench.command(JOB)
    for payload in (b"{", b"[]", b'{"a":' * 99):
        bench.forget()
        bench.receive(command_topic(JOB), payload)
        assert [effect.retain for effect in bench.done(do.Publish)] == [False, True]
        assert bench.statuses(JOB)[-1] == "executing"


def test_our_own_echo_does_nothing(bench: AgentBench) -> None:
    bench.command(JOB)
    echoes = [effect.payload for effect in bench.done(do.Publish) if effect.topic == command_topic(JOB)]
    bench.forget()
    for echo in echoes:
        bench.receive(command_topic(JOB), echo)
    assert bench.effects == []


def test_an_answer_to_nobody_is_not_answered_again(bench: AgentBench) -> None:
    bench.command("reboot/1")
    (answer,) = bench.done(do.Publish)
    bench.forget()
    bench.receive(command_topic("reboot/1"), answer.payload)
    assert bench.effects == []


def test_a_newer_revision_at_the_broker_is_overtaken(bench: AgentBench) -> None:
    bench.command(JOB)
    state = bench.states(JOB)[-1]
    bench.forget()
    bench.receive(command_topic(JOB), msgspec.json.encode({**state, "rev": 50}))
    assert [found["rev"] for found in bench.states(JOB)] == [51]
    bench.say(Progress(Step.PLAN, 0.5))
    assert bench.states(JOB)[-1]["rev"] == 52


def test_a_state_too_large_to_be_read_back_is_not_published_for_ever(bench: AgentBench) -> None:
    bench.command("ping/1", filler="x" * (256 * 1024 - 60))
    (state,) = [effect.payload for effect in bench.done(do.Publish)]
    assert len(state) > 256 * 1024
    bench.forget()
    bench.post(events.Received(command_topic("ping/1"), None, len(state)))
    assert bench.effects == []


# --- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "payload", "code"),
    [
        ("specialize/1", b"{", "INVALID_JSON"),
        ("specialize/1", b'{"status":"\xff"}', "INVALID_JSON"),
        ("specialize/1", b"[]", "SCHEMA"),
        ("specialize/1", b"{}", "SCHEMA"),
        ("specialize/1", b'{"status":"executing"}', "SCHEMA"),
        ("specialize/1", b'{"status":"init","args":{"sparsity":2}}', "SCHEMA"),
        ("specialize/1", b'{"status":"init","args":{"what":1}}', "SCHEMA"),
        ("specialize/1", b'{"status":"init","expires_at":"soon"}', "SCHEMA"),
        ("ping/1", b'{"status":"init","args":{"x":1}}', "SCHEMA"),
        ("reboot/1", b'{"status":"init"}', "UNSUPPORTED"),
        ("rollback/1", b'{"status":"init"}', "UNSUPPORTED"),
    ],
)
def test_what_cannot_be_done_is_refused(bench: AgentBench, label: str, payload: bytes, code: str) -> None:
    bench.receive(command_topic(label), payload)
    assert bench.failure(label) == code
    (answer,) = bench.done(do.Publish)
    assert answer.retain, "the answer takes the place of the command"
    assert not bench.done(do.Save)
    assert bench.agent.status(bench.now)["state"] == "idle"


def test_a_refusal_keeps_the_controllers_fields(bench: AgentBench) -> None:
    bench.command("reboot/1", {"now": True}, requester="me")
    assert bench.states("reboot/1")[-1]["requester"] == "me"
    assert bench.states("reboot/1")[-1]["args"] == {"now": True}


def test_a_payload_over_the_limit_is_refused(bench: AgentBench) -> None:
    bench.post(events.Received(command_topic(JOB), None, 300_000))
    assert bench.failure(JOB) == "SCHEMA"
    assert "300000 bytes" in bench.states(JOB)[-1]["reason"]


def test_a_payload_over_the_limit_under_a_known_id_is_refused_too(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.forget()
    bench.post(events.Received(command_topic(JOB), None, 300_000))
    assert [effect.retain for effect in bench.done(do.Publish)] == [False, True]
    assert bench.statuses(JOB) == ["failed", "executing"]


def test_one_job_at_a_time(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("plan/2")
    assert bench.failure("plan/2") == "BUSY"
    assert bench.states("plan/2")[-1]["reason"] == f"busy with {JOB}"
    assert bench.states("plan/2")[-1]["error"]["retryable"] is True
    assert len(bench.done(do.Launch)) == 1


def test_what_was_refused_as_busy_can_be_sent_again(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("plan/2")
    bench.say(Done({}))
    bench.end()
    bench.command("plan/2")
    assert bench.statuses("plan/2")[-1] == "executing"


def test_a_stopping_agent_takes_no_more_jobs_but_answers(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.StopAsked())
    bench.command("plan/2")
    bench.command("ping/3")
    assert bench.failure("plan/2") == "BUSY"
    assert bench.states("ping/3")[-1]["result"]["state"] == "stopping"


# --- times -------------------------------------------------------------------------------------------------------------------


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
    assert bench.statuses(JOB) == ["scheduled"]
    bench.say(Done({}), "plan/1")
    bench.end("plan/1")
    assert bench.statuses(JOB) == ["scheduled", "executing"]


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


# --- cancel ------------------------------------------------------------------------------------------------------------------


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


# --- restarts ----------------------------------------------------------------------------------------------------------------


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


# --- the worker --------------------------------------------------------------------------------------------------------------


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
        ({"returncode": -9, "oom": True}, "OOM_KILLED"),
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


def test_a_worker_that_suspends_itself_was_interrupted(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Suspended())
    bench.end()
    assert bench.failure(JOB) == "INTERRUPTED"


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
    bench.say(Happening("epoch", {"epoch": 1, "loss": 0.5}))
    assert [record.topic for record in bench.done(do.Record)] == [TOPICS.event("epoch"), TOPICS.measurement("training")]


def test_a_new_release_is_looked_up(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.say(Happening("release", {}))
    assert bench.done(do.ReadRelease) == [do.ReadRelease()]


def test_a_worker_that_cannot_be_started(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.LaunchFailed(key(JOB), ErrorCode.BAD_BUNDLE, "there is no bundle"))
    assert bench.failure(JOB) == "BAD_BUNDLE"
    assert bench.agent.status(bench.now)["state"] == "idle"


# --- a full disk -------------------------------------------------------------------------------------------------------------


def dropped_after_first_save(bench: AgentBench, effects: list[do.Effect]) -> list[do.Effect]:
    """Play an executor that cannot store a command's first state: nothing that follows is done; return what was done."""
    index = next(i for i, effect in enumerate(effects) if isinstance(effect, do.Save) and effect.first)
    save = effects[index]
    assert isinstance(save, do.Save)
    del bench.journal[save.command.label]
    bench.effects = list(effects[:index])
    bench.post(events.JournalFailed(save.command.label, "database or disk is full"))
    return bench.effects


def test_what_cannot_be_journaled_is_refused_and_not_started(bench: AgentBench) -> None:
    dropped_after_first_save(bench, bench.command(JOB))
    assert bench.failure(JOB) == "NO_DISK"
    assert bench.states(JOB)[-1]["error"]["retryable"] is True
    assert not bench.done(do.Launch)
    assert bench.agent.status(bench.now)["state"] == "idle"
    bench.forget()
    bench.command(JOB)
    assert bench.statuses(JOB)[-1] == "executing", "once there is room, the same command is welcome"


def test_a_ping_is_answered_all_the_same(bench: AgentBench) -> None:
    assert not any(save.first for save in bench.done(do.Save))
    bench.command("ping/1")
    assert not any(save.first for save in bench.done(do.Save))
    assert bench.statuses("ping/1") == ["successful"]


def test_a_command_that_was_due_starts_although_a_new_one_cannot_be_journaled(bench: AgentBench) -> None:
    bench.command("plan/1", not_before=WALL + 60)
    bench.now = bench.now.__class__(WALL + 61, bench.now.mono + 61, True)
    done = dropped_after_first_save(bench, bench.command("plan/2", not_before=WALL + 90))
    assert [effect.command.label for effect in done if isinstance(effect, do.Launch)] == ["plan/1"]
    assert states(done, "plan/2")[-1]["error"]["code"] == "NO_DISK"


def test_the_failure_of_an_unknown_command_changes_nothing(bench: AgentBench) -> None:
    assert bench.post(events.JournalFailed("plan/9", "full")) == []


# --- the end of a command ----------------------------------------------------------------------------------------------------


def finished(bench: AgentBench, label: str = JOB) -> None:
    bench.command(label)
    bench.say(Done({}), label)
    bench.end(label)


def test_an_end_is_announced_on_every_connection_until_it_is_acknowledged(bench: AgentBench) -> None:
    finished(bench)
    for _ in range(2):
        bench.post(events.Disconnected("gone", 1.0))
        bench.forget()
        bench.connect()
        assert bench.statuses(JOB) == ["successful"]
    (publication,) = [effect for effect in bench.done(do.Publish) if effect.topic == command_topic(JOB)]
    bench.post(events.Acknowledged(publication.token))
    assert bench.journal[JOB].acknowledged
    bench.forget()
    bench.connect()
    assert bench.statuses(JOB) == []


def test_only_an_end_asks_for_an_acknowledgement(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.Acknowledged(JOB))
    assert not bench.journal[JOB].acknowledged
    assert {effect.token for effect in bench.done(do.Publish)} == {""}


def test_acknowledgements_of_anything_else_are_ignored(bench: AgentBench) -> None:
    assert bench.post(events.Acknowledged("")) == []
    assert bench.post(events.Acknowledged("plan/99")) == []


def test_a_command_that_the_controller_cleared_is_not_announced_again(bench: AgentBench) -> None:
    finished(bench)
    bench.receive(command_topic(JOB), b"")
    assert bench.journal[JOB].cleared
    bench.forget()
    bench.connect()
    assert bench.statuses(JOB) == []
    bench.restart()
    bench.connect()
    assert bench.statuses(JOB) == []


def test_clearing_a_running_command_does_not_stop_it(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.forget()
    assert bench.receive(command_topic(JOB), b"") == []
    bench.say(Done({}))
    bench.end()
    assert bench.statuses(JOB) == ["successful"]


def test_clearing_what_nobody_knows_does_nothing(bench: AgentBench) -> None:
    assert bench.receive(command_topic(JOB), b"") == []
