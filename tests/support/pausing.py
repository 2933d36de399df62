"""What tests of pauses ask of an agent on the bench."""

from __future__ import annotations

from typing import Any

import msgspec

from reconvene_agent.core.protocol import Suspended
from reconvene_agent.daemon import effects as do
from support.agents import TOPICS, AgentBench


def told(bench: AgentBench) -> list[tuple[str, str | None]]:
    """Return the pauses that went to the spool: which event, and its cause."""
    topics = {TOPICS.event(name): name for name in ("paused", "resumed")}
    return [(topics[each.topic], each.document.get("cause")) for each in bench.done(do.Record) if each.topic in topics]


def alarm(bench: AgentBench, name: str) -> dict[str, Any] | None:
    """Return the alarm of that name as the broker holds it."""
    topic = TOPICS.alarm(name)
    last = [each.payload for each in bench.done(do.Publish) if each.topic == topic][-1]
    return None if last == b"" else dict(msgspec.json.decode(last))


def launches(bench: AgentBench) -> int:
    return len(bench.done(do.Launch))


def status(bench: AgentBench) -> dict[str, Any]:
    return bench.agent.status(bench.now)


def suspend(bench: AgentBench) -> None:
    """Let the worker do as it was asked."""
    assert bench.done(do.AskWorker)[-1] == do.AskWorker("suspend")
    bench.say(Suspended())
    bench.end()
