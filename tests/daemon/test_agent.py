from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.config import Config
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.protocol import Done
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import SETTLE_S, TIDY_EVERY_S
from reconvene_agent.daemon.reporting import alarms
from reconvene_agent.daemon.security.certificate import Certificate
from support.agents import CONFIG, IDENTITY, TOPICS, WALL, AgentBench
from support.values import NASTY_JSON, device, json_values, release

HEALTH = TOPICS.health


@pytest.fixture
def bench() -> AgentBench:
    """Return a started agent without a connection."""
    made = AgentBench()
    made.post(events.Started())
    return made


def published(bench: AgentBench, topic: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(effect.payload) for effect in bench.done(do.Publish) if effect.topic == topic]


def test_at_the_start_the_board_is_probed_and_the_release_looked_up(bench: AgentBench) -> None:
    bench.post(events.Tick())
    assert len(bench.done(do.Sample)) == 1
    assert len(bench.done(do.ReadRelease)) == 2, "at the start, and whenever the board is probed"
    assert bench.done(do.Remember)[0].document["state"] == "idle"


def test_the_board_is_sampled_at_the_configured_pace(bench: AgentBench) -> None:
    for _ in range(600):
        bench.wait(1)
    assert len(bench.done(do.Sample)) == 600 / CONFIG.telemetry.interval_s


def test_a_sample_is_reported_and_known(bench: AgentBench) -> None:
    bench.post(events.Sampled({"load_1min": 0.5}, device()))
    bench.post(events.Sampled({"load_1min": 0.6}, device()))
    records = bench.done(do.Record)
    assert [(record.kind, record.topic) for record in records] == [("measurement", TOPICS.measurement("system"))] * 2
    assert records[0].document == {"time": "2026-01-01T00:00:00.000Z", "load_1min": 0.5}
    assert len(published(bench, TOPICS.twin("hardware"))) == 1, "what the board is does not change"
    assert bench.agent.status(bench.now)["device"]["model"] == "Some Board"


def test_a_release_is_told_when_it_changes(bench: AgentBench) -> None:
    bench.post(events.ReleaseRead(None))
    bench.post(events.ReleaseRead(release("r0001-00000000")))
    bench.post(events.ReleaseRead(release("r0001-00000000")))
    bench.post(events.ReleaseRead(release("r0002-00000001")))
    assert [twin["version"] for twin in published(bench, TOPICS.twin("model"))] == ["r0001-00000000", "r0002-00000001"]
    assert bench.agent.status(bench.now)["release"]["version"] == "r0002-00000001"


# --- the broker --------------------------------------------------------------------------------------------------------------


def test_birth_comes_when_retained_commands_have_settled(bench: AgentBench) -> None:
    bench.post(events.Connected("5"))
    assert bench.agent.due(bench.now) <= bench.now.mono + SETTLE_S
    bench.command("ping/1")
    bench.wait(SETTLE_S - 0.1)
    bench.command("ping/2")
    bench.wait(SETTLE_S - 0.1)
    assert published(bench, HEALTH) == []
    bench.wait(0.1)
    assert [health["status"] for health in published(bench, HEALTH)] == ["up"]


def test_a_stream_of_commands_does_not_put_off_the_birth_for_ever(bench: AgentBench) -> None:
    bench.post(events.Connected("5"))
    for number in range(100):
        bench.command(f"ping/{number}")
        bench.wait(0.1)
    assert [health["status"] for health in published(bench, HEALTH)] == ["up"]


def test_what_is_announced_at_birth(bench: AgentBench) -> None:
    bench.post(events.Sampled({}, device()))
    bench.post(events.ReleaseRead(release()))
    bench.forget()
    bench.connect()
    topics = [effect.topic for effect in bench.done(do.Publish)]
    assert topics == [
        *(TOPICS.capability(op) for op in OPERATIONS),
        HEALTH,
        TOPICS.twin("config"),
        TOPICS.twin("hardware"),
        TOPICS.twin("model"),
        *(TOPICS.alarm(name) for name in alarms.NAMES),
    ]
    assert all(effect.retain for effect in bench.done(do.Publish))


def test_commands_are_told_after_the_birth(bench: AgentBench) -> None:
    bench.command("specialize/1")
    bench.forget()
    bench.connect()
    assert bench.statuses("specialize/1") == ["executing"]
    last = bench.done(do.Publish)[-1]
    assert last.topic == TOPICS.command("specialize", "1")


def test_health_tells_who_is_up(bench: AgentBench) -> None:
    bench.connect()
    assert published(bench, HEALTH) == [
        {
            "status": "up",
            "pid": 4711,
            "time": "2026-01-01T00:00:00.500Z",
            "session": "session-1",
            "boot_id": "boot-1",
            "version": "0.1.0",
            "state": "idle",
        }
    ]


def test_health_follows_the_state(bench: AgentBench) -> None:
    bench.connect()
    bench.command("specialize/1")
    bench.say(Done({}))
    bench.end()
    assert [health["state"] for health in published(bench, HEALTH)] == ["idle", "specialize", "idle"]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"status":"down","session":"session-0"}',
        b'{"status":"down","session":"session-1"}',
        b'{"status":"up","session":"session-0"}',
        b"",
        b"rubbish",
        b"[]",
        *NASTY_JSON.values(),
    ],
)
def test_who_says_that_we_are_down_is_contradicted(bench: AgentBench, payload: bytes) -> None:
    bench.connect()
    bench.forget()
    bench.receive(HEALTH, payload)
    assert [health["status"] for health in published(bench, HEALTH)] == ["up"]


def test_a_health_message_too_large_to_read_is_contradicted(bench: AgentBench) -> None:
    bench.connect()
    bench.forget()
    bench.post(events.Received(HEALTH, None, 300_000))
    assert len(published(bench, HEALTH)) == 1


def test_our_own_health_is_not_answered(bench: AgentBench) -> None:
    bench.connect()
    (health,) = [effect.payload for effect in bench.done(do.Publish) if effect.topic == HEALTH]
    bench.forget()
    assert bench.receive(HEALTH, health) == []


def test_an_old_last_will_is_not_answered_before_the_birth(bench: AgentBench) -> None:
    bench.post(events.Connected("5"))
    bench.receive(HEALTH, b'{"status":"down","session":"session-0"}')
    assert published(bench, HEALTH) == []
    bench.wait(SETTLE_S)
    assert [health["status"] for health in published(bench, HEALTH)] == ["up"]


def test_a_connection_lost_before_the_birth_announces_nothing(bench: AgentBench) -> None:
    bench.post(events.Connected("5"))
    bench.post(events.Disconnected("gone", 1.0))
    bench.wait(10)
    assert published(bench, HEALTH) == []


def test_messages_for_somebody_else_are_dropped(bench: AgentBench) -> None:
    bench.connect()
    bench.forget()
    for topic in ("", "x", TOPICS.service, TOPICS.capability("plan"), TOPICS.command("plan", "a b")):
        bench.receive(topic, b'{"status":"init"}')
    assert {type(effect) for effect in bench.effects} == {do.Log}


# --- the status --------------------------------------------------------------------------------------------------------------


def test_the_status_is_answered_without_a_broker(bench: AgentBench) -> None:
    bench.command("specialize/1")
    bench.wait(5)
    (answer,) = [effect for effect in bench.post(events.StatusAsked(7)) if isinstance(effect, do.Answer)]
    assert answer.ticket == 7
    document = answer.document
    assert (document["state"], document["device_id"], document["uptime_s"]) == ("specialize", "board-1", 5.0)
    assert document["job"]["id"] == "1"
    assert document["job"]["elapsed_s"] == 5.0
    assert document["problems"] == ["no broker: not connected yet"]
    assert document["broker"]["connected"] is False


def test_the_status_follows_the_connection(bench: AgentBench) -> None:
    bench.connect()
    assert bench.agent.status(bench.now)["problems"] == []
    assert bench.agent.status(bench.now)["broker"]["protocol"] == "5"
    bench.post(events.Disconnected("the cable is out", 4.0))
    assert bench.agent.status(bench.now)["problems"] == ["no broker: the cable is out"]
    assert bench.done(do.Log)[-1].text == "no broker: the cable is out; next try in 4 s"


def test_without_a_configured_broker_nothing_is_missing() -> None:
    bench = AgentBench(config=Config())
    bench.post(events.Started())
    assert bench.agent.status(bench.now)["problems"] == []


def test_the_last_known_state_is_kept_where_it_changes(bench: AgentBench) -> None:
    bench.connect()
    bench.command("specialize/1")
    bench.say(Done({}))
    bench.end()
    bench.post(events.Disconnected("gone", 1.0))
    told = [(effect.document["state"], effect.document["broker"]["connected"]) for effect in bench.done(do.Remember)]
    assert told == [("idle", False), ("idle", True), ("specialize", True), ("idle", True), ("idle", False)]


# --- the end -----------------------------------------------------------------------------------------------------------------


def test_an_idle_agent_says_goodbye_and_leaves(bench: AgentBench) -> None:
    bench.connect()
    bench.forget()
    bench.post(events.StopAsked())
    assert published(bench, HEALTH)[-1] == {"status": "down", "session": "session-1"}
    assert bench.done(do.Remember)[-1].document["state"] == "stopped"
    assert isinstance(bench.effects[-1], do.Quit)


def test_it_leaves_once(bench: AgentBench) -> None:
    bench.post(events.StopAsked())
    bench.post(events.StopAsked())
    bench.wait(100)
    assert len(bench.done(do.Quit)) == 1


def test_it_waits_for_the_worker_but_not_for_ever(bench: AgentBench) -> None:
    bench.command("specialize/1")
    bench.post(events.StopAsked())
    bench.wait(10)
    bench.wait(5)
    assert bench.done(do.EndWorker) == [do.EndWorker(hard=False), do.EndWorker(hard=True)]
    bench.end(returncode=-9)
    assert len(bench.done(do.Quit)) == 1


def test_nothing_waiting_starts_while_it_stops(bench: AgentBench) -> None:
    bench.command("specialize/1")
    bench.command("plan/2", not_before=WALL + 5)
    bench.post(events.StopAsked())
    bench.wait(6)
    bench.end()
    assert len(bench.done(do.Launch)) == 1


# --- anything at all ---------------------------------------------------------------------------------------------------------

topics = st.sampled_from([HEALTH, *(TOPICS.command(op, "1") for op in (*OPERATIONS, "other"))])
fields = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("args", "rev", "expires_at", "not_before", "timeout_s", "status", "step"), json_values)
)
payloads = st.one_of(
    st.binary(),
    json_values.map(msgspec.json.encode),
    fields.map(lambda message: msgspec.json.encode({"status": "init", **message})),
    st.sampled_from(sorted(NASTY_JSON.values())),
)


@given(st.lists(st.tuples(topics, payloads), max_size=6))
def test_no_message_breaks_it(messages: list[tuple[str, bytes]]) -> None:
    bench = AgentBench()
    bench.connect()
    for topic, payload in messages:
        bench.receive(topic, payload)
        bench.wait(1)
    bench.forget()
    bench.command("ping/last")
    assert bench.statuses("ping/last") == ["successful"]
    assert bench.agent.due(bench.now) < float("inf")
    assert IDENTITY.topics == TOPICS


def test_a_certificate_that_is_about_to_expire_is_an_alarm_until_it_is_replaced() -> None:
    ends = WALL + 86400.0
    bench = AgentBench(certificate=Certificate("/etc/board.crt", "board-1", WALL - 90 * 86400, ends))
    bench.post(events.Started())
    bench.connect()
    bench.wait(TIDY_EVERY_S)
    text = "the certificate /etc/board.crt expires on 2026-01-02T00:00:00.000Z: put a new one there and restart"
    assert bench.agent.status(bench.now)["problems"] == [text]
    alarm = msgspec.json.decode([e.payload for e in bench.done(do.Publish) if e.topic == TOPICS.alarm("certificate")][-1])
    assert (alarm["text"], alarm["severity"]) == (text, "minor")
    bench.certificate = None
    bench.restart()
    bench.connect()
    assert bench.agent.status(bench.now)["problems"] == []
