from __future__ import annotations

import pytest

from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import JOB, WALL, AgentBench, command_topic, states

# --- refusals -------------------------------------------------------------------------------------------------------------------


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
        ("rollback/1", b'{"status":"init","args":{"steps":3}}', "SCHEMA"),
        ("promote/1", b'{"status":"init"}', "SCHEMA"),
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


def test_a_stopping_agent_takes_no_more_jobs_but_answers(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.post(events.StopAsked())
    bench.command("plan/2")
    bench.command("ping/3")
    assert bench.failure("plan/2") == "BUSY"
    assert bench.states("ping/3")[-1]["result"]["state"] == "stopping"


# --- a full disk ----------------------------------------------------------------------------------------------------------------


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
    bench.command("plan/1", not_before=WALL + 6)
    bench.now = bench.now.__class__(WALL + 7, bench.now.mono + 7, True)
    done = dropped_after_first_save(bench, bench.command("plan/2", not_before=WALL + 90))
    assert [effect.command.label for effect in done if isinstance(effect, do.Launch)] == ["plan/1"]
    assert states(done, "plan/2")[-1]["error"]["code"] == "NO_DISK"


def test_the_failure_of_an_unknown_command_changes_nothing(bench: AgentBench) -> None:
    assert bench.post(events.JournalFailed("plan/9", "full")) == []
