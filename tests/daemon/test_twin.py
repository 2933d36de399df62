"""What the broker retains of the agent is the newest there is after every connection, whatever was lost before it."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconvene_agent.core.protocol import Done
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import alarms, announce
from support.agents import TOPICS, AgentBench
from support.values import device, release

HOT_C, COOL_C = 95.0, 40.0


class Broker:
    """Keeps what is published and retained, as long as the line holds; ``bench`` may not know yet that it does not."""

    def __init__(self, bench: AgentBench) -> None:
        self.bench = bench
        self.up = False
        self.retained: dict[str, bytes] = {}

    def hear(self) -> None:
        """Take in what the agent has published since it was asked last."""
        effects: list[Effect] = list(self.bench.effects)
        self.bench.forget()
        for effect in effects:
            if self.up and isinstance(effect, do.Publish) and effect.retain:
                self.retained[effect.topic] = effect.payload

    def get(self, topic: str) -> Any:
        payload = self.retained.get(topic, b"")
        return msgspec.json.decode(payload) if payload else None


def plain(document: dict[str, Any]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document))


steps = st.one_of(
    st.tuples(st.just("release"), st.integers(1, 5)),
    st.sampled_from(["no release", "hot", "cool", "job", "cut", "notice", "connect", "forget", "restart"]),
)


@settings(max_examples=40)
@given(st.lists(steps, max_size=25))
@example(["job"])
@example(["job", "job", "restart"])
@example(["connect", ("release", 1), "job", "hot", "cut", "forget", "cool", ("release", 2)])
def test_after_a_connection_the_broker_has_the_newest_of_everything(todo: list[Any]) -> None:
    bench = AgentBench()
    broker = Broker(bench)
    bench.post(events.Started())
    bench.post(events.Sampled({}, device()))
    serving, last, hot = None, None, False
    for number, step in enumerate([*todo, "cut", "notice", "connect"]):
        if isinstance(step, tuple):
            serving = release(f"r{step[1]:04d}-00000000")
            bench.post(events.ReleaseRead(serving))
        elif step == "no release":
            serving = None
            bench.post(events.ReleaseRead(None))
        elif step in ("hot", "cool"):
            hot = step == "hot"
            bench.fare(HOT_C if hot else COOL_C)
        elif step == "job" and not hot:
            last = f"specialize/{number}"
            bench.command(last)
            bench.say(Done({}), last)
            bench.end(last)
        elif step == "cut":  # from now on all is lost, and the agent finds out only later
            broker.hear()
            broker.up = False
        elif step == "notice":
            bench.post(events.Disconnected("gone", 1.0))
        elif step == "connect" and not broker.up:
            broker.hear()
            broker.up = True
            bench.connect()
        elif step == "forget":
            broker.hear()
            if not broker.up:
                broker.retained.clear()
        elif step == "restart":
            broker.hear()
            broker.up = False
            bench.restart()
            bench.post(events.Sampled({}, device()))
            bench.post(events.ReleaseRead(serving))
            bench.fare(HOT_C if hot else COOL_C)
        broker.hear()
    assert broker.get(TOPICS.twin("model")) == (None if serving is None else plain(announce.model(serving)))
    assert broker.get(TOPICS.twin("hardware")) == plain(announce.hardware(device()))
    assert broker.get(TOPICS.twin("config")) == {**plain(bench.config.public()), "updated": []}
    result = broker.get(TOPICS.twin("last_result"))
    assert (None if result is None else f"{result['op']}/{result['id']}") == last
    standing = {name for name in alarms.NAMES if broker.get(TOPICS.alarm(name)) is not None}
    assert standing == ({"over_temperature"} if hot else set())
    assert broker.get(TOPICS.health)["status"] == "up"
