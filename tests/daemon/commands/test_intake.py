from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status, digest_of
from reconvene_agent.core.topics import CommandTopic
from reconvene_agent.daemon.commands import intake
from reconvene_agent.daemon.events import Received
from support.agents import WALL, command_topic
from support.values import NASTY_JSON, json_values

NOW = Now(WALL, 0.0)
TOPIC = CommandTopic("plan", "1")
REQUEST: dict[str, Any] = {"args": {"sparsity": 0.5}}
KNOWN = Command("plan", "1", REQUEST, digest_of(REQUEST), WALL, WALL, Status.EXECUTING, rev=5)


def sort(payload: bytes, known: Command | None = None, now: Now = NOW, topic: CommandTopic = TOPIC) -> intake.Intake:
    event = Received(command_topic(f"{topic.op}/{topic.id}"), payload, len(payload))
    return intake.sort_message(event, topic, known, now, {}, lambda _: None)


def init(**fields: Any) -> bytes:
    return msgspec.json.encode({"status": "init", **fields})


def test_a_new_command_is_accepted_as_it_came() -> None:
    found = sort(init(args={"sparsity": 0.5}, expires_at=WALL + 1, other=[1]))
    assert isinstance(found, intake.Accepted)
    assert found.command.request == {"args": {"sparsity": 0.5}, "expires_at": WALL + 1, "other": [1]}
    assert (found.command.status, found.command.received_at, found.command.rev) == (Status.INIT, WALL, 0)
    assert found.envelope.expires_at == WALL + 1


def test_the_same_content_is_a_repetition() -> None:
    assert sort(init(**REQUEST), KNOWN) == intake.Repeated()


def test_other_content_is_a_reuse() -> None:
    found = sort(init(args={}), KNOWN)
    assert isinstance(found, intake.Refused)
    assert found.reused
    assert found.command.error is not None
    assert found.command.error.code is ErrorCode.ID_REUSED


@pytest.mark.parametrize("rev", [0, 5, 99])
def test_what_carries_a_revision_is_our_own(rev: int) -> None:
    assert sort(msgspec.json.encode({"status": "executing", "rev": rev}), KNOWN) == intake.Echo(rev)


@pytest.mark.parametrize("known", [None, KNOWN])
def test_an_empty_message_clears(known: Command | None) -> None:
    assert sort(b"", known) == intake.Cleared()


def test_an_unfinished_state_that_nobody_knows_is_an_orphan() -> None:
    found = sort(msgspec.json.encode({"status": "scheduled", "rev": 3, **REQUEST}))
    assert isinstance(found, intake.Orphan)
    assert (found.command.rev, found.command.request) == (4, REQUEST)


@pytest.mark.parametrize("known", [None, KNOWN])
@pytest.mark.parametrize("payload", NASTY_JSON.values(), ids=NASTY_JSON.keys())
def test_nasty_payloads_are_refused_or_clear(payload: bytes, known: Command | None) -> None:
    found = sort(payload, known)
    if payload:
        assert isinstance(found, intake.Refused)
        assert found.reused == (known is not None)
    else:
        assert found == intake.Cleared()


def test_without_a_clock_nothing_is_late() -> None:
    late = init(expires_at=WALL - 1)
    assert isinstance(sort(late), intake.Refused)
    assert isinstance(sort(late, now=Now(WALL, 0.0, False)), intake.Accepted)


@given(
    payload=st.binary() | json_values.map(msgspec.json.encode),
    known=st.sampled_from([None, KNOWN, msgspec.structs.replace(KNOWN, status=Status.FAILED)]),
    topic=st.sampled_from([TOPIC, CommandTopic("ping", "1"), CommandTopic("other", "1")]),
)
def test_every_message_is_something(payload: bytes, known: Command | None, topic: CommandTopic) -> None:
    found = sort(payload, known, topic=topic)
    if isinstance(found, (intake.Refused, intake.Orphan)):
        assert found.command.status is Status.FAILED
        assert found.command.error is not None
        assert msgspec.json.encode(found.command)
