"""``config_update`` and ``restart``: journaled, done once, ended whatever happens between."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status
from reconvene_agent.core.overlay import Outcome, Overlay, Trial
from reconvene_agent.core.protocol import Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands.renewal import RETRY_S
from reconvene_agent.daemon.effects import Effect
from support.agents import JOB, TOPICS, AgentBench, stored

UPDATE = "config_update/1"
EPOCHS = {"set": {"training.epochs": 3}}
INTERVAL = {"set": {"telemetry.interval_s": 5}}


def on_trial(needs_broker: bool = False, by: str = "") -> Overlay:
    """Return what is on disk once the command has changed a setting."""
    by = by or stored(label=UPDATE).name
    return Overlay({"telemetry": {"interval_s": 5}}, Trial(by, {}, needs_broker, 60.0, ["telemetry.interval_s"], 1))


def come_up(overlay: Overlay, args: dict[str, Any] = INTERVAL) -> AgentBench:
    """Return an agent that comes up with an update executing in its journal and this on its disk."""
    bench = AgentBench(known=[stored(label=UPDATE, request={"args": args})])
    bench.overlay = overlay
    bench.restart()
    return bench


def settle(bench: AgentBench) -> list[Effect]:
    """Let the disk do the settling that the agent wants, and the agent hear of it."""
    (wanted,) = bench.done(do.SettleSettings)
    bench.overlay = bench.overlay.settled(wanted.held, wanted.detail)
    bench.forget()
    return bench.post(events.SettingsSettled(bench.overlay))


def quits(bench: AgentBench) -> list[bool]:
    return [effect.again for effect in bench.done(do.Quit)]


# --- restart --------------------------------------------------------------------------------------------------------------------


def test_a_restart_is_journaled_and_told_before_it_begins(bench: AgentBench) -> None:
    bench.command("restart/1")
    kinds = [type(effect) for effect in bench.effects if not isinstance(effect, do.Log)]
    assert kinds == [do.Save, do.Publish, do.AskRestart]
    assert bench.statuses("restart/1") == ["executing"]
    bench.post(events.RestartAsked("restart/1"))
    assert quits(bench) == [True]
    bench.forget()
    bench.restart()
    bench.connect()
    last = bench.states("restart/1")[-1]
    assert last["status"] == "successful"
    assert last["result"] == {"pid": 4711, "version": "0.1.0"}
    assert quits(bench) == []


def test_the_retained_command_does_not_restart_it_again(bench: AgentBench) -> None:
    bench.command("restart/1")
    bench.post(events.RestartAsked("restart/1"))
    bench.restart()
    bench.forget()
    bench.command("restart/1")
    assert bench.statuses("restart/1") == ["successful"]
    assert quits(bench) == []
    assert bench.done(do.AskRestart) == []


def test_a_restart_waits_for_the_checkpoint_of_the_job(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command("restart/1")
    bench.post(events.RestartAsked("restart/1"))
    assert bench.done(do.AskWorker) == [do.AskWorker("suspend")]
    assert quits(bench) == []
    bench.say(Suspended())
    bench.end()
    assert quits(bench) == [True]
    bench.forget()
    bench.restart()
    assert [effect.command.label for effect in bench.done(do.Launch)] == [JOB]


def test_a_restart_that_cannot_be_journaled_is_not_made(bench: AgentBench) -> None:
    bench.command("restart/1")
    assert bench.done(do.Save)[0].first
    bench.post(events.JournalFailed("restart/1", "disk full"))
    bench.post(events.RestartAsked("restart/1"))
    assert bench.failure("restart/1") == "NO_DISK"
    assert quits(bench) == []
    assert bench.agent.status(bench.now)["state"] == "idle"


@pytest.mark.parametrize("first", ["stop", "restart"])
def test_who_stops_it_for_good_wins(bench: AgentBench, first: str) -> None:
    bench.command(JOB)
    bench.command("restart/1")
    told: list[events.Event] = [events.StopAsked(), events.RestartAsked("restart/1")]
    for event in told if first == "stop" else reversed(told):
        bench.post(event)
    bench.say(Suspended())
    bench.end()
    assert quits(bench) == [False]


def test_a_second_renewal_is_busy_with_the_first(bench: AgentBench) -> None:
    bench.command("restart/1")
    bench.command("restart/2")
    bench.command(UPDATE, INTERVAL)
    assert bench.failure("restart/2") == bench.failure(UPDATE) == "BUSY"
    assert bench.states("restart/2")[-1]["reason"] == "busy with restart/1"


# --- config_update: proposed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ({"set": {}}, "names no setting"),
        ({"set": {"agent.state_dir": "/tmp"}}, "agent.state_dir cannot be changed by a command"),
        ({"set": {"broker.key_file": "/k", "training.epochs": 1}}, "broker.key_file cannot be changed by a command"),
        ({"set": {"specialize.data": "../../etc"}}, "specialize.data must be a name inside the agent's own folder"),
        ({"set": {"specialize.bundle": "/etc"}}, "specialize.bundle must be a name inside"),
        ({"set": {"training": {"epochs": 3}}}, "training cannot be changed"),
        ({"set": {"training.epochs": 3}, "more": 1}, "more"),
        ({"set": {"training.epochs": 3}, "trial_s": 0}, "trial_s"),
        ({}, "set"),
    ],
)
def test_only_what_is_listed_is_accepted(bench: AgentBench, args: dict[str, Any], word: str) -> None:
    bench.command(UPDATE, args)
    assert bench.failure(UPDATE) == "SCHEMA"
    assert word in bench.states(UPDATE)[-1]["reason"]
    assert bench.done(do.UpdateSettings) == []


def test_an_update_is_journaled_proposed_and_begins_with_a_restart(bench: AgentBench) -> None:
    bench.command(UPDATE, {**INTERVAL, "trial_s": 30})
    kinds = [type(effect) for effect in bench.effects if not isinstance(effect, do.Log)]
    assert kinds == [do.Save, do.Publish, do.UpdateSettings]
    (wanted,) = bench.done(do.UpdateSettings)
    assert (wanted.changes, wanted.trial_s) == ({"telemetry.interval_s": 5}, 30.0)
    bench.post(events.SettingsUpdated(UPDATE, on_trial(by=wanted.by)))
    assert quits(bench) == [True]
    assert bench.journal[UPDATE].status is Status.EXECUTING


def test_an_update_that_is_refused_ends_there(bench: AgentBench) -> None:
    bench.command(UPDATE, INTERVAL)
    bench.post(events.SettingsUpdated(UPDATE, None, ErrorCode.SCHEMA, "telemetry.interval_s: no"))
    assert bench.failure(UPDATE) == "SCHEMA"
    assert quits(bench) == []


def test_an_update_that_changes_nothing_in_use_ends_at_once(bench: AgentBench) -> None:
    bench.command(UPDATE, INTERVAL)
    by = bench.done(do.UpdateSettings)[0].by
    bench.post(events.SettingsUpdated(UPDATE, Overlay({}, None, Outcome(by, True, []))))
    assert bench.states(UPDATE)[-1]["result"] == {"changed": []}
    assert quits(bench) == []


def test_a_job_keeps_the_settings_that_it_goes_by(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.command(UPDATE, EPOCHS)
    assert bench.failure(UPDATE) == "BUSY"
    assert bench.states(UPDATE)[-1]["reason"] == "busy with specialize/1, which goes by training.epochs"
    bench.command("config_update/2", INTERVAL)
    assert bench.statuses("config_update/2") == ["executing"]
    assert len(bench.done(do.UpdateSettings)) == 1


# --- config_update: on trial ----------------------------------------------------------------------------------------------------


def test_settings_hold_when_it_has_come_up_with_them() -> None:
    bench = come_up(on_trial())
    settle(bench)
    assert bench.states(UPDATE)[-1]["result"] == {"changed": ["telemetry.interval_s"]}
    assert quits(bench) == []
    bench.wait(1000)
    assert bench.done(do.SettleSettings) == []


def test_those_of_the_broker_hold_when_it_is_reached() -> None:
    bench = come_up(on_trial(needs_broker=True))
    bench.wait(59)
    assert bench.done(do.SettleSettings) == []
    bench.post(events.Connected("5"))
    settle(bench)
    assert bench.journal[UPDATE].status is Status.SUCCESSFUL


def test_otherwise_they_are_taken_back_and_it_comes_up_again() -> None:
    bench = come_up(on_trial(needs_broker=True))
    bench.post(events.Disconnected("nobody there", 5.0))
    due = bench.agent.due(bench.now)
    assert due <= bench.now.mono + 60
    bench.wait(61)
    settle(bench)
    assert bench.failure(UPDATE) == "VERIFY_FAILED"
    assert bench.states(UPDATE)[-1]["reason"] == "rolled back: the broker was not reached within 60 s: nobody there"
    assert quits(bench) == [True]
    assert bench.overlay.settings == {}


def test_an_outcome_on_disk_is_told_after_a_crash() -> None:
    for held, status in ((True, "successful"), (False, "failed")):
        bench = come_up(on_trial().settled(held, "" if held else "no broker"))
        assert bench.statuses(UPDATE) == [status]
        assert bench.done(do.UpdateSettings) == bench.done(do.SettleSettings) == []


def test_an_update_that_a_crash_cut_off_before_the_disk_is_proposed_again() -> None:
    earlier = Overlay({}, None, Outcome("config_update/1 17.000000", True, []))  # an id may come again
    bench = come_up(earlier)
    (wanted,) = bench.done(do.UpdateSettings)
    assert wanted.by == stored(label=UPDATE).name
    assert bench.journal[UPDATE].status is Status.EXECUTING


def test_an_update_that_brings_the_agent_down_is_not_proposed_for_ever() -> None:
    bench = come_up(Overlay())
    for attempt in (2, 3):
        assert bench.journal[UPDATE].attempt == attempt
        bench.restart()
    assert bench.failure(UPDATE) == "INTERRUPTED"
    assert len(bench.done(do.UpdateSettings)) == 2


def test_a_trial_that_the_journal_does_not_know_is_settled_too() -> None:
    bench = AgentBench()
    bench.overlay = on_trial()
    bench.restart()
    settle(bench)
    assert bench.overlay.trial is None
    bench.connect()
    bench.command("config_update/2", INTERVAL)
    assert len(bench.done(do.UpdateSettings)) == 1


def test_nothing_else_is_changed_during_a_trial() -> None:
    bench = AgentBench()
    bench.overlay = on_trial(needs_broker=True)
    bench.restart()
    bench.command("config_update/2", INTERVAL)
    assert bench.failure("config_update/2") == "BUSY"


def test_an_outcome_that_cannot_be_written_down_is_tried_again() -> None:
    bench = come_up(on_trial())
    bench.post(events.SettingsSettled(None, "no space left"))
    assert bench.journal[UPDATE].status is Status.EXECUTING
    bench.wait(RETRY_S + 1)
    first, second = bench.done(do.SettleSettings)
    assert first == second


def test_what_has_been_changed_is_told() -> None:
    bench = AgentBench()
    bench.overlay = Overlay({"telemetry": {"interval_s": 5}, "budget": {"latency_ms": 20}})
    bench.restart()
    bench.connect()
    twins = [effect.payload for effect in bench.done(do.Publish) if effect.topic == TOPICS.twin("config")]
    assert msgspec.json.decode(twins[-1])["updated"] == ["budget.latency_ms", "telemetry.interval_s"]
    assert bench.agent.status(bench.now)["updated"] == ["budget.latency_ms", "telemetry.interval_s"]
