from __future__ import annotations

import msgspec

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.job import Status, Step
from reconvene_agent.core.protocol import Done, Progress, Ready
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import TIDY_EVERY_S
from reconvene_agent.daemon.commands.book import CLEAR_AFTER_S, MAX_KEPT, MAX_KEPT_BYTES
from support.agents import JOB, TOPICS, WALL, AgentBench, command_topic, key

# --- a whole life ---------------------------------------------------------------------------------------------------------------


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


# --- the end of a command -------------------------------------------------------------------------------------------------------


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


# --- what is left on the broker -------------------------------------------------------------------------------------------------


def cleared(bench: AgentBench, label: str) -> bool:
    """Whether the agent has cleared a command from the broker."""
    return do.Publish(command_topic(label), b"") in bench.effects


def test_an_end_is_cleared_a_day_after_the_broker_has_it(bench: AgentBench) -> None:
    finished(bench)
    bench.wait(2 * CLEAR_AFTER_S)
    assert not cleared(bench, JOB), "nobody has seen it yet"
    bench.post(events.Acknowledged(JOB))
    bench.wait(CLEAR_AFTER_S)
    assert not cleared(bench, JOB)
    bench.wait(TIDY_EVERY_S)
    assert cleared(bench, JOB)


def test_what_was_sent_again_after_it_was_cleared_is_answered_and_cleared_again(bench: AgentBench) -> None:
    finished(bench)
    bench.receive(command_topic(JOB), b"")
    bench.forget()
    bench.command(JOB)
    assert bench.statuses(JOB) == ["successful"]
    assert not bench.done(do.Launch)
    assert not bench.journal[JOB].cleared
    bench.post(events.Acknowledged(JOB))
    bench.wait(CLEAR_AFTER_S + TIDY_EVERY_S)
    assert cleared(bench, JOB)


def test_a_command_that_was_cleared_before_its_end_came_is_cleared_after_it(bench: AgentBench) -> None:
    finished(bench)
    end = [effect.payload for effect in bench.done(do.Publish) if effect.topic == command_topic(JOB)][-1]
    bench.post(events.Acknowledged(JOB))
    bench.receive(command_topic(JOB), b"")
    bench.receive(command_topic(JOB), end)
    bench.wait(CLEAR_AFTER_S + TIDY_EVERY_S)
    assert cleared(bench, JOB)


def test_a_refusal_is_cleared_after_a_day_unless_the_id_has_become_a_command(bench: AgentBench) -> None:
    for label in ("reboot/1", "plan/1"):
        bench.receive(command_topic(label), b"{")
    bench.command("plan/1")
    bench.wait(CLEAR_AFTER_S)
    assert not cleared(bench, "reboot/1")
    bench.wait(TIDY_EVERY_S)
    assert cleared(bench, "reboot/1")
    assert not cleared(bench, "plan/1")


def test_old_ends_that_no_journal_knows_are_cleared_when_they_are_read(bench: AgentBench) -> None:
    for label, age in (("plan/1", CLEAR_AFTER_S + 1), ("plan/2", CLEAR_AFTER_S - 1)):
        state = {"status": "failed", "rev": 1, "updated_at": rfc3339(WALL - age)}
        bench.receive(command_topic(label), msgspec.json.encode(state))
    assert cleared(bench, "plan/1")
    assert not cleared(bench, "plan/2")


def test_a_flood_of_commands_leaves_no_more_than_can_be_kept(bench: AgentBench) -> None:
    for number in range(3 * MAX_KEPT):
        bench.command(f"ping/{number}")
    assert MAX_KEPT <= len(bench.journal) <= 1.2 * MAX_KEPT
    assert "ping/0" not in bench.journal
    assert cleared(bench, "ping/0")
    for number in range(20):
        bench.command(f"ping/large-{number}", note="x" * 200_000)
    assert sum(len(msgspec.json.encode(command)) for command in bench.journal.values()) <= 1.5 * MAX_KEPT_BYTES
