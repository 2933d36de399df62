"""Commands as a controller makes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.cli.fleet import orders
from reconvene_agent.cli.fleet.signed import encoded
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.messages import MAX_PAYLOAD, OPERATIONS, decode_envelope
from reconvene_agent.core.topics import valid_segment

NOW = 1767225600.5


@given(wall=st.floats(0, 4e9), chance=st.from_regex(r"\A[0-9a-f]{6}\Z"))
def test_every_id_can_stand_in_a_topic(wall: float, chance: str) -> None:
    assert valid_segment(orders.new_id("rollout", wall, chance))


def test_ids_sort_by_time() -> None:
    assert orders.new_id("send", NOW, "ab12cd") == "send-20260101T000000-ab12cd"


def test_agents_understand_what_is_composed() -> None:
    payload = orders.compose({"bundle": "ours"}, "me@here", NOW, 60.0)
    envelope = decode_envelope(payload)
    assert (envelope.args, envelope.expires_at) == ({"bundle": "ours"}, NOW + 60)
    assert "expires_at" not in orders.compose({}, "me@here", NOW, None)


def test_what_agents_would_refuse_is_not_sent() -> None:
    with pytest.raises(UsageError, match=f"agents accept at most {MAX_PAYLOAD}"):
        encoded(None, "plan", "b1", "r1", orders.compose({"x": "y" * MAX_PAYLOAD}, "me", NOW, None))


@pytest.mark.parametrize("op", OPERATIONS)
def test_unknown_arguments_of_any_operation_are_told(op: str) -> None:
    with pytest.raises(UsageError, match="wrong arguments"):
        orders.checked_args(op, '{"no_such_argument":1}')


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "\udcff", "[" * 100, "NaN"])
def test_what_is_no_object_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--args must be a JSON object"):
        orders.checked_args("ping", text)


def test_every_device_is_commanded_once() -> None:
    assert orders.checked_devices(["b", "a", "b"]) == ["b", "a"]


@pytest.mark.parametrize(("codes", "code"), [([], 0), ([0, 0], 0), ([0, 4, 4], 4), ([4, 5], 1), ([10], 10)])
def test_one_exit_code_for_many_devices(codes: list[int], code: int) -> None:
    assert orders.exit_code_of(codes) == code


def test_counts_are_english() -> None:
    said: list[Any] = [orders.counted(count) for count in (0, 1, 2)]
    assert said == ["0 devices", "1 device", "2 devices"]
