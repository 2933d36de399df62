from __future__ import annotations

from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import SETTLE_S
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting.alarms import NAMES, Alarms
from support.agents import TOPICS, WALL, AgentBench


def retained(effects: Iterable[Effect]) -> dict[str, bytes]:
    """Return what a broker would hold afterwards."""
    held = {effect.topic: effect.payload for effect in effects if isinstance(effect, do.Publish) and effect.retain}
    return {topic: payload for topic, payload in held.items() if payload}


def test_an_alarm_stands_until_it_is_cleared() -> None:
    alarms = Alarms(TOPICS)
    (topic, payload), *others = retained(alarms.sound("over_budget", "too slow", "major", WALL)).items()
    assert others == []
    assert topic == TOPICS.alarm("over_budget") == f"{TOPICS.service}/a/over_budget"
    assert msgspec.json.decode(payload) == {"text": "too slow", "severity": "major", "time": "2026-01-01T00:00:00.000Z"}
    assert alarms.problems == ["too slow"]
    cleared = list(alarms.clear("over_budget"))
    assert do.Publish(topic, b"") in cleared
    assert alarms.problems == []


def test_what_is_no_news_is_not_told_again() -> None:
    alarms = Alarms(TOPICS)
    assert list(alarms.clear("over_budget")) == []
    first = list(alarms.sound("over_budget", "too slow", "major", WALL))
    assert first
    assert list(alarms.sound("over_budget", "too slow", "major", WALL + 9)) == []
    (payload,) = retained(alarms.sound("over_budget", "slower still", "major", WALL + 9)).values()
    assert msgspec.json.decode(payload)["time"] == "2026-01-01T00:00:00.000Z", "it has stood since then"


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.booleans(), st.text(max_size=3)), max_size=20))
def test_a_broker_that_forgot_holds_the_same_after_the_announcement(steps: list[tuple[str, bool, str]]) -> None:
    alarms = Alarms(TOPICS)
    told: list[Effect] = []
    for name, stands, text in steps:
        assert name in NAMES
        told += alarms.sound(name, text, "minor", WALL) if stands else alarms.clear(name)
    assert retained(told) == retained(alarms.announce())


def test_on_every_connection_all_alarms_are_told_so_that_none_of_an_earlier_session_stays() -> None:
    bench = AgentBench()
    bench.post(events.Connected("5"))
    bench.wait(SETTLE_S)
    told = {effect.topic for effect in bench.done(do.Publish) if effect.payload == b""}
    assert told == {TOPICS.alarm(name) for name in NAMES} | {TOPICS.twin("model")}
