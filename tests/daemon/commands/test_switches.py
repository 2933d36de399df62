"""``rollback`` and ``promote``: answered at once, done once, and told."""

from __future__ import annotations

import msgspec
import pytest

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status
from reconvene_agent.core.shelf import Fall, Switch
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import TOPICS, WALL, AgentBench, stored
from support.values import release

BACK = Switch("r0002-00000002", "r0001-00000001")


@pytest.mark.parametrize(
    ("label", "args", "to"),
    [("rollback/1", {}, 1), ("rollback/1", {"steps": 2}, 2), ("promote/1", {"version": "r0001"}, "r0001")],
)
def test_a_switch_is_journaled_then_made(bench: AgentBench, label: str, args: dict[str, object], to: object) -> None:
    bench.command(label, args)
    kinds = [type(effect) for effect in bench.effects if not isinstance(effect, do.Log)]
    assert kinds == [do.Save, do.SwitchRelease]
    (switch,) = bench.done(do.SwitchRelease)
    assert (switch.label, switch.to) == (label, to)
    assert bench.journal[label].status is Status.EXECUTING


def test_the_answer_names_the_versions(bench: AgentBench) -> None:
    bench.command("rollback/1")
    bench.post(events.ReleaseSwitched("rollback/1", BACK))
    (state,) = bench.states("rollback/1")
    assert state["status"] == "successful"
    assert state["result"] == {"before": "r0002-00000002", "after": "r0001-00000001"}
    (record,) = bench.done(do.Record)
    assert record.topic == TOPICS.event("rolled_back")
    assert record.document["command"] == "rollback/1"
    assert bench.done(do.ReadRelease), "so that the twin is published anew"


def test_a_promotion_is_told_as_one(bench: AgentBench) -> None:
    bench.command("promote/1", {"version": "r0001"})
    bench.post(events.ReleaseSwitched("promote/1", BACK))
    assert [record.topic for record in bench.done(do.Record)] == [TOPICS.event("model_promoted")]


def test_a_switch_that_cannot_be_made_fails_with_its_reason(bench: AgentBench) -> None:
    bench.command("rollback/1")
    bench.post(events.ReleaseSwitched("rollback/1", None, ErrorCode.VERIFY_FAILED, "it is broken"))
    assert bench.failure("rollback/1") == "VERIFY_FAILED"
    assert bench.done(do.Record) == []


def test_a_switch_may_be_made_while_a_job_runs(bench: AgentBench) -> None:
    bench.command("specialize/1")
    bench.command("rollback/1")
    bench.post(events.ReleaseSwitched("rollback/1", BACK))
    assert bench.statuses("rollback/1") == ["successful"]
    assert bench.journal["specialize/1"].status is Status.EXECUTING


def test_a_switch_that_a_crash_cut_off_is_made_again_under_the_same_name(bench: AgentBench) -> None:
    bench.command("rollback/1")
    (first,) = bench.done(do.SwitchRelease)
    bench.forget()
    bench.restart()
    assert bench.done(do.SwitchRelease) == [first]
    assert bench.done(do.Launch) == []
    bench.post(events.ReleaseSwitched("rollback/1", BACK))
    bench.post(events.ReleaseSwitched("rollback/1", BACK))
    assert bench.statuses("rollback/1") == ["successful"]


def test_a_switch_that_is_not_understood_any_more_fails() -> None:
    bench = AgentBench(known=[stored(label="promote/1", request={"args": {"what": 1}})])
    bench.post(events.Started())
    assert bench.failure("promote/1") == "SCHEMA"


def test_a_switch_that_cannot_be_journaled_is_not_made(bench: AgentBench) -> None:
    bench.command("rollback/1")
    assert bench.done(do.Save)[0].first
    bench.post(events.JournalFailed("rollback/1", "disk full"))
    assert bench.failure("rollback/1") == "NO_DISK"


def test_a_switch_is_not_canceled_half_way(bench: AgentBench) -> None:
    bench.command("rollback/1")
    bench.command("cancel/2", {"id": "1"})
    assert bench.states("cancel/2")[-1]["result"] == {"canceled": None}
    bench.post(events.ReleaseSwitched("rollback/1", BACK))
    assert bench.statuses("rollback/1") == ["successful"]


def test_a_switch_for_later_waits(bench: AgentBench) -> None:
    bench.command("rollback/1", not_before=WALL + 60)
    assert bench.done(do.SwitchRelease) == []
    bench.wait(61)
    assert len(bench.done(do.SwitchRelease)) == 1


# --- what is deployed --------------------------------------------------------------------------------------------------------


def alarm(bench: AgentBench) -> bytes:
    topic = TOPICS.alarm("release_broken")
    return next(effect.payload for effect in reversed(bench.done(do.Publish)) if effect.topic == topic)


def test_a_broken_release_is_an_alarm_until_another_one_serves(bench: AgentBench) -> None:
    old, new = release("r0001-00000001"), release("r0002-00000002")
    bench.post(events.ReleaseRead(new))
    bench.post(events.ReleaseRead(old, "broken", Fall(new.version, "torn", old.version)))
    assert msgspec.json.decode(alarm(bench))["severity"] == "major"
    (record,) = bench.done(do.Record)
    assert record.topic == TOPICS.event("rolled_back")
    assert record.document == {
        "time": "2026-01-01T00:00:00.500Z",
        "before": new.version,
        "after": old.version,
        "reason": "torn",
    }
    assert bench.agent.status(bench.now)["problems"] == ["broken"]
    assert bench.done(do.Remember)[-1].document["problems"] == ["broken"]
    bench.post(events.ReleaseRead(old, "broken"))
    assert len(bench.done(do.Record)) == 1
    bench.post(events.ReleaseRead(release("r0003-00000003")))
    assert alarm(bench) == b""


def test_where_nothing_can_be_trusted_the_alarm_is_critical_and_the_twin_is_empty(bench: AgentBench) -> None:
    bench.post(events.ReleaseRead(release()))
    bench.post(events.ReleaseRead(None, "all broken"))
    assert msgspec.json.decode(alarm(bench))["severity"] == "critical"
    twins = [effect.payload for effect in bench.done(do.Publish) if effect.topic == TOPICS.twin("model")]
    assert twins[-1] == b""
    assert bench.agent.status(bench.now)["release"] is None
