from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import messages
from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.errors import ErrorCode, UsageError
from reconvene_agent.core.job import AGENT_FIELDS, digest_of
from reconvene_agent.core.messages import MAX_PAYLOAD, OPERATIONS, Envelope, PlanArgs, SpecializeArgs, decode_args
from reconvene_agent.core.options import DEFAULT_SPARSITIES
from support.values import NASTY_JSON, json_values

names = st.sampled_from(["status", "args", "issued_at", "expires_at", "not_before", "timeout_s", "requester", "rev", "other"])
envelopes = st.dictionaries(names, json_values | st.just("init") | st.just("2026-01-01T00:00:00Z"))


def refusal(function: Any, *arguments: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        function(*arguments)
    return caught.value


def code_of(function: Any, *arguments: Any) -> ErrorCode | None:
    """Return the code of the refusal, or None where there is none."""
    try:
        function(*arguments)
    except UsageError as error:
        return error.code if error.message else None
    return None


def read(raw: bytes) -> None:
    message = messages.decode_object(raw)
    digest_of(messages.request_of(message))
    messages.decode_envelope(message)


@given(st.binary() | json_values.map(msgspec.json.encode))
def test_no_payload_breaks_the_reader(raw: bytes) -> None:
    assert code_of(read, raw) in (ErrorCode.INVALID_JSON, ErrorCode.SCHEMA)


@given(envelopes)
def test_no_envelope_breaks_the_reader(message: dict[str, Any]) -> None:
    code = code_of(messages.decode_envelope, message)
    if code is None:
        assert message["status"] == "init"
        assert messages.decode_envelope(message).args == message.get("args", {})
    else:
        assert code is ErrorCode.SCHEMA


@given(st.sampled_from(sorted(OPERATIONS)), st.dictionaries(st.sampled_from(PlanArgs.__struct_fields__) | st.text(), json_values))
def test_no_arguments_break_the_reader(op: str, args: dict[str, Any]) -> None:
    code = code_of(decode_args, op, args, {})
    if code is None:
        assert isinstance(decode_args(op, args, {}), OPERATIONS[op].args)
    else:
        assert code is ErrorCode.SCHEMA


@pytest.mark.parametrize("raw", NASTY_JSON.values(), ids=NASTY_JSON.keys())
def test_what_is_not_json(raw: bytes) -> None:
    assert refusal(messages.decode_object, raw).code in (ErrorCode.INVALID_JSON, ErrorCode.SCHEMA)


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"init"', b"null", b"true"])
def test_what_is_json_but_no_object(raw: bytes) -> None:
    error = refusal(messages.decode_object, raw)
    assert (error.code, error.message[:34]) == (ErrorCode.SCHEMA, "the payload must be a JSON object:")


def test_the_size_has_a_limit() -> None:
    assert messages.decode_object(b"{" + b" " * (MAX_PAYLOAD - 2) + b"}") == {}
    error = refusal(messages.decode_object, b"{" + b" " * (MAX_PAYLOAD - 1) + b"}")
    assert error.code is ErrorCode.SCHEMA
    assert str(MAX_PAYLOAD + 1) in error.message


def test_the_controllers_part_is_everything_that_is_not_ours() -> None:
    message = dict.fromkeys(AGENT_FIELDS, 1) | {"args": {}, "expires_at": 5, "x-trace": [1]}
    assert messages.request_of(message) == {"args": {}, "expires_at": 5, "x-trace": [1]}


@pytest.mark.parametrize("moment", ["1970-01-01T00:01:00Z", "1970-01-01T01:01:00+01:00", 60, 60.0])
def test_times_may_be_texts_or_numbers(moment: str | float) -> None:
    message = {"status": "init", "issued_at": moment, "expires_at": moment, "not_before": moment, "timeout_s": 5}
    assert messages.decode_envelope(message) == Envelope({}, 60.0, 60.0, 5.0)


def test_what_is_left_out_is_no_limit() -> None:
    assert messages.decode_envelope({"status": "init"}) == Envelope({}, None, None, None)
    assert not messages.decode_envelope({"status": "init", "timeout_s": 1}).timed
    assert messages.decode_envelope({"status": "init", "not_before": 1}).timed


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"status": "executing"},
        {"status": 1},
        {"status": "init", "args": []},
        {"status": "init", "args": None},
        {"status": "init", "expires_at": "tomorrow"},
        {"status": "init", "expires_at": "2026-01-01T00:00:00"},
        {"status": "init", "expires_at": True},
        {"status": "init", "issued_at": "yesterday"},
        {"status": "init", "not_before": 10**400},
        {"status": "init", "timeout_s": 0},
        {"status": "init", "timeout_s": "5"},
        {"status": "init", "requester": 5},
    ],
)
def test_an_envelope_that_does_not_fit(message: dict[str, Any]) -> None:
    assert refusal(messages.decode_envelope, message).code is ErrorCode.SCHEMA


def test_an_unknown_operation() -> None:
    error = refusal(decode_args, "reboot", {}, {})
    assert error.code is ErrorCode.UNSUPPORTED
    assert f"there are: {', '.join(OPERATIONS)}" in error.message


DEFAULTS = {
    "bundle": "ours",
    "data": "ours",
    "sparsities": [0.5],
    "method": {"average": "weighted", "min_width": 8},
    "training": {"epochs": 3},
}


def test_defaults_fill_in_what_is_left_out_setting_by_setting() -> None:
    args = decode_args("specialize", {"data": "theirs", "method": {"min_width": 2}}, DEFAULTS)
    assert isinstance(args, SpecializeArgs)
    assert (args.bundle, args.data, args.sparsities) == ("ours", "theirs", (0.5,))
    assert (args.method.average, args.method.min_width, args.training.epochs) == ("weighted", 2, 3)


def test_an_operation_takes_only_the_defaults_that_it_knows() -> None:
    plan = decode_args("plan", {}, DEFAULTS)
    assert isinstance(plan, PlanArgs)
    assert (plan.bundle, plan.data) == ("ours", "ours")
    assert decode_args("ping", {}, DEFAULTS) == messages.PingArgs()
    assert decode_args("cancel", {"id": "1"}, DEFAULTS) == messages.CancelArgs("1")


def test_without_defaults_the_arguments_are_bare() -> None:
    args = decode_args("plan", {}, {})
    assert isinstance(args, PlanArgs)
    assert (args.bundle, args.data, args.sparsity) == (msgspec.UNSET, msgspec.UNSET, msgspec.UNSET)
    assert (args.sparsities, args.budget) == (DEFAULT_SPARSITIES, BudgetLimits())


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("ping", {"x": 1}),
        ("cancel", {"id": ""}),
        ("cancel", {"id": 5}),
        ("plan", {"bundle": ""}),
        ("plan", {"bundle": "x" * 256}),
        ("plan", {"bundle": None}),
        ("plan", {"sparsity": 1.0}),
        ("plan", {"sparsity": -0.1}),
        ("plan", {"sparsities": []}),
        ("plan", {"sparsities": [0.5] * 65}),
        ("plan", {"budget": {"latency": 5}}),
        ("plan", {"budget": {"latency_ms": 0}}),
        ("plan", {"method": {"criterion": "movement"}}),
        ("plan", {"method": "mean"}),
        ("plan", {"method": {"width_multiplier": 0}}),
        ("plan", {"data": ""}),
        ("plan", {"training": {"epochs": 3}}),
        ("specialize", {"training": {"epochs": 0}}),
        ("specialize", {"training": {"batch": 1}}),
    ],
)
def test_arguments_that_do_not_fit(op: str, args: dict[str, Any]) -> None:
    error = refusal(decode_args, op, args, {})
    assert error.code is ErrorCode.SCHEMA
    assert error.message.startswith("wrong arguments: ")


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_capability_describes_its_arguments(op: str) -> None:
    document = msgspec.json.decode(messages.capability(op))
    assert document["description"] == OPERATIONS[op].description
    kind = OPERATIONS[op].args
    assert document["args"]["$ref"] == f"#/$defs/{kind.__name__}"
    assert set(document["args"]["$defs"][kind.__name__]["properties"]) == set(kind.__struct_fields__)


def test_the_registration_is_thin_edges() -> None:
    assert msgspec.json.decode(messages.registration("x")) == {"@type": "service", "name": "x", "type": "ml-agent"}
