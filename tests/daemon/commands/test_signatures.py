from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconvene_agent.core.clock import Now
from reconvene_agent.core.protocol import Done
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import TIDY_EVERY_S
from reconvene_agent.daemon.commands import book
from support.agents import JOB, WALL, AgentBench, command_topic
from support.signatures import TRUSTED, signed

DAY = 86400.0


@pytest.fixture
def bench() -> AgentBench:
    """Return a connected agent that trusts one key."""
    made = AgentBench(keys=TRUSTED)
    made.post(events.Started())
    made.connect()
    made.forget()
    return made


def send(bench: AgentBench, label: str, message: dict[str, Any]) -> None:
    bench.receive(command_topic(label), msgspec.json.encode(message))


@pytest.mark.parametrize("label", ["specialize/1", "plan/1", "cancel/1", "rollback/1", "promote/1", "pause/1", "resume/1"])
def test_what_is_not_signed_is_refused(bench: AgentBench, label: str) -> None:
    args = {"version": "1"} if label == "promote/1" else {}
    bench.command(label, args)
    assert bench.failure(label) == "BAD_SIGNATURE"
    assert not bench.done(do.Save)
    send(bench, label, signed(label, args) | {"args": {"x": 1}})
    assert bench.failure(label) == "BAD_SIGNATURE", "before its arguments are looked at"
    bench.forget()
    send(bench, label, signed(label, args))
    assert bench.done(do.Save), "it is accepted"


def test_a_ping_needs_no_signature_and_may_have_any(bench: AgentBench) -> None:
    bench.command("ping/1")
    bench.command("ping/2", sig={"key": "nobody's"})
    assert [bench.statuses(f"ping/{number}")[-1] for number in (1, 2)] == ["successful", "successful"]


def test_a_signature_is_kept_in_what_is_published(bench: AgentBench) -> None:
    message = signed(JOB)
    send(bench, JOB, message)
    assert bench.states(JOB)[-1]["sig"] == message["sig"]


def test_the_same_command_again_is_answered_and_no_replay(bench: AgentBench) -> None:
    message = signed("rollback/1")
    send(bench, "rollback/1", message)
    bench.post(events.ReleaseSwitched("rollback/1", None, detail="none"))
    before = bench.states("rollback/1")[-1]
    bench.restart()
    bench.connect()
    bench.forget()
    send(bench, "rollback/1", message)
    assert bench.states("rollback/1") == [before]
    assert not bench.done(do.SwitchRelease)


def test_a_signature_does_not_serve_twice_under_any_id(bench: AgentBench) -> None:
    message = signed("pause/1")
    send(bench, "pause/1", message)
    send(bench, "pause/2", message)
    assert bench.failure("pause/2") == "BAD_SIGNATURE", "the id is signed"


def test_a_command_that_was_forgotten_does_not_come_again(bench: AgentBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that keeps the message of a command plays it again, before and after a restart, until it has expired."""
    monkeypatch.setattr(book, "MAX_KEPT", 0)
    message = signed("pause/1")
    send(bench, "pause/1", message)
    bench.wait(TIDY_EVERY_S)
    assert not bench.journal, "it is forgotten"
    for begin in (lambda: None, bench.restart):
        begin()
        bench.connect()
        bench.forget()
        send(bench, "pause/1", message)
        assert bench.failure("pause/1") == "REPLAYED"
        assert not bench.done(do.KeepPause)
    bench.wait(3600)
    assert (bench.nonces, bench.floor) == ({}, WALL + 3600)
    bench.now = Now(WALL, bench.now.mono)
    for begin in (lambda: None, bench.restart):
        begin()
        bench.forget()
        send(bench, "pause/1", message)
        assert bench.failure("pause/1") == "REPLAYED", "also if the clock has gone back"


def test_what_is_done_at_once_is_journaled_before(bench: AgentBench) -> None:
    send(bench, JOB, signed(JOB))
    bench.forget()
    send(bench, "cancel/1", signed("cancel/1"))
    kinds = [type(effect) for effect in bench.effects]
    assert kinds.index(do.Save) < kinds.index(do.AskWorker)
    first = bench.done(do.Save)[0].command
    assert (first.label, first.status.value) == ("cancel/1", "scheduled")


def test_a_crash_between_acceptance_and_action_loses_nothing_and_repeats_nothing(bench: AgentBench) -> None:
    """With the journal as it was after the very first write."""
    message = signed("pause/1")
    send(bench, "pause/1", message)
    bench.journal = {"pause/1": bench.done(do.Save)[0].command}
    bench.ordered_by = ""
    bench.forget()
    bench.restart()
    assert bench.statuses("pause/1")[-1] == "successful"
    bench.connect()
    bench.forget()
    send(bench, "pause/1", message)
    assert bench.statuses("pause/1") == ["successful"]
    assert not bench.done(do.KeepPause)


def test_what_was_refused_as_busy_may_be_sent_again(bench: AgentBench) -> None:
    send(bench, JOB, signed(JOB))
    message = signed("plan/2")
    send(bench, "plan/2", message)
    if bench.states("plan/2")[-1]["status"] == "failed":
        assert bench.failure("plan/2") == "BUSY"
        bench.say(Done({}))
        bench.end()
        bench.forget()
        send(bench, "plan/2", message)
    assert bench.statuses("plan/2")[-1] != "failed"


def test_a_signed_command_waits_for_the_clock() -> None:
    bench = AgentBench(synchronized=False, keys=TRUSTED)
    bench.post(events.Started())
    bench.connect()
    in_time, late = signed("pause/1", wall=WALL + DAY), signed("pause/2", wall=WALL - DAY)
    send(bench, "pause/1", in_time)
    send(bench, "pause/2", late)
    assert [bench.statuses(f"pause/{number}")[-1] for number in (1, 2)] == ["scheduled", "scheduled"]
    bench.synchronize(WALL + DAY + 1)
    bench.wait(10)
    assert bench.statuses("pause/1")[-1] == "successful"
    assert bench.failure("pause/2") == "EXPIRED"


def test_runs_that_the_agent_gives_itself_need_no_signature(bench: AgentBench) -> None:
    """They never come from the wire: a message under such an id is one of the fleet's."""
    bench.command("specialize/auto-1", requester="agent")
    assert bench.failure("specialize/auto-1") == "BAD_SIGNATURE"
