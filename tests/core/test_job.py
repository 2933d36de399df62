from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import AGENT_FIELDS, TRANSITIONS, Command, Failure, Status, Step, advance, digest_of, payload
from support.values import json_values


def command(request: dict[str, Any] | None = None, **changes: Any) -> Command:
    return Command("plan", "1", request or {}, digest_of(request or {}), 100.0, 100.0, **changes)


def test_the_states_and_their_ends() -> None:
    assert {status for status in Status if status.terminal} == {Status.SUCCESSFUL, Status.FAILED}
    assert TRANSITIONS[Status.INIT] == {Status.SCHEDULED, Status.FAILED}
    assert TRANSITIONS[Status.SCHEDULED] == {Status.EXECUTING, Status.FAILED}
    assert TRANSITIONS[Status.EXECUTING] == {Status.SUCCESSFUL, Status.FAILED}


@given(st.sampled_from(Status), st.sampled_from(Status) | st.none())
def test_only_legal_transitions_are_made(before: Status, after: Status | None) -> None:
    start = command(status=before)
    legal = not before.terminal if after in (None, before) else after in TRANSITIONS[before]
    if legal:
        assert advance(start, 101.0, after).status is (after or before)
    else:
        with pytest.raises(ValueError, match="plan/1"):
            advance(start, 101.0, after)


@given(st.lists(st.sampled_from(Status) | st.none(), max_size=30))
def test_every_step_is_a_new_revision(steps: list[Status | None]) -> None:
    now = command()
    for number, step in enumerate(steps):
        try:
            following = advance(now, 101.0 + number, step)
        except ValueError:
            continue
        assert (following.rev, following.updated_at) == (now.rev + 1, 101.0 + number)
        assert following.status is now.status or following.status in TRANSITIONS[now.status]
        now = following


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_fields_we_do_not_know_are_published_as_they_came(request: dict[str, Any]) -> None:
    request = {name: value for name, value in request.items() if name not in AGENT_FIELDS}
    published = msgspec.json.decode(payload(command(request, status=Status.SCHEDULED)))
    assert {name: published[name] for name in request} == request
    assert published["status"] == "scheduled"


def test_a_scheduled_command_says_no_more_than_there_is() -> None:
    assert msgspec.json.decode(payload(command({"args": {"x": 1}}, status=Status.SCHEDULED, rev=1))) == {
        "args": {"x": 1},
        "status": "scheduled",
        "rev": 1,
        "progress": 0.0,
        "attempt": 0,
        "updated_at": "1970-01-01T00:01:40.000Z",
    }


def test_a_failed_command_says_why() -> None:
    failure = Failure.of(ErrorCode.NO_DISK, "free some")
    ended = command(
        status=Status.FAILED, step=Step.TRAIN, progress=0.12345, reason="free some", error=failure, result={"plan": 1}
    )
    document = msgspec.json.decode(payload(ended))
    assert document["error"] == {"code": "NO_DISK", "retryable": True, "detail": "free some"}
    assert (document["reason"], document["step"], document["result"]) == ("free some", "train", {"plan": 1})
    assert document["progress"] == 0.1235


def test_the_agents_fields_cannot_be_faked_by_a_request() -> None:
    faked = command({"status": "successful", "rev": 99, "progress": 1}, status=Status.SCHEDULED, rev=1)
    document = msgspec.json.decode(payload(faked))
    assert (document["status"], document["rev"], document["progress"]) == ("scheduled", 1, 0.0)


def test_the_payload_has_no_field_that_counts_as_the_controllers() -> None:
    full = command(status=Status.FAILED, step=Step.PLAN, reason="r", result={}, error=Failure.of(ErrorCode.BUSY, "d"))
    assert msgspec.json.decode(payload(full)).keys() == AGENT_FIELDS


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_the_digest_tells_content_not_its_order(request: dict[str, Any]) -> None:
    assert digest_of(request) == digest_of(dict(reversed(request.items())))
    assert digest_of(request) != digest_of({**request, "one more": 1} if "one more" not in request else {})


@pytest.mark.parametrize("command_id", ["1", "a.b:c", "x" * 128])
def test_the_key_is_safe_as_a_file_name(command_id: str) -> None:
    key = msgspec.structs.replace(command(), id=command_id).key
    assert len(key) == 16
    assert key.isalnum()


def test_keys_of_different_commands_differ() -> None:
    assert len({Command(op, number, {}, "", 0.0, 0.0).key for op in ("plan", "ping") for number in ("1", "2")}) == 4


@given(st.dictionaries(st.text(), json_values, max_size=5), st.sampled_from(Status))
def test_a_command_survives_the_journals_encoding(request: dict[str, Any], status: Status) -> None:
    kept = command(request, status=status, error=Failure.of(ErrorCode.BUSY, "x"), result=request)
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Command) == kept
