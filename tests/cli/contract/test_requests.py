"""What the schemas let through the agent accepts, and the other way round: so a controller can check before it sends."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from reconvene_agent.cli.contract import catalogue, examples, schemas
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.messages import OPERATIONS, Request, decode_args, decode_envelope
from reconvene_agent.core.updatable import NAMES
from support.values import json_values

# The agent takes 1.0 for no whole number; a schema cannot say that (docs/mqtt.md does).
_whole = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_whole)
VALIDATORS = {op: Validator(schemas.standalone(catalogue.request_of(op).__name__)) for op in OPERATIONS}

numbers = st.sampled_from([-1, 0, 1, 2, 3, 4, 64, 5000, 10_001, 0.0, 0.5, 1.0, 1.5, -0.5, 1e9, 2**53, 2**70, True, False, None])
words = st.sampled_from(
    ["", "x", "y" * 255, "z" * 256, "auto", "none", "never", "magnitude", "sqrt", "init", "2026-01-05T10:00:00Z"]
)
odd = numbers | words | st.lists(numbers, max_size=3) | json_values


def documents(kind: type[Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Return documents of a type's fields and others, with what is valid there and what is not."""
    fields: dict[str, st.SearchStrategy[Any]] = {"x-unknown": odd}
    for field in msgspec.structs.fields(kind):
        if field.encode_name == "set":
            fields["set"] = odd | st.dictionaries(st.sampled_from(NAMES), odd, max_size=2)
            continue
        inner = field.type if isinstance(field.type, type) and issubclass(field.type, Struct) else None
        fields[field.encode_name] = odd if inner is None else odd | documents(inner)
    names = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen}))


@pytest.mark.parametrize("op", OPERATIONS)
def test_arguments(op: str) -> None:
    accepted = set()
    documented = examples.examples()[catalogue.request_of(op).__name__][0]["args"]

    @settings(max_examples=80)
    @given(documents(OPERATIONS[op].args))
    @example(documented)
    @example({"x-unknown": 0})
    def same(args: dict[str, Any]) -> None:
        try:
            decode_args(op, args, {})
            fits = True
        except UsageError:
            fits = False
        valid = VALIDATORS[op].is_valid({"status": "init", "args": args})
        assert valid == fits or (valid and op == "config_update"), "which looks at the values of its settings later"
        accepted.add(fits)

    same()
    assert accepted == {True, False}, "both must have been tried"


@settings(max_examples=150)
@given(documents(Request))
def test_what_is_accepted_around_them_fits_the_schema(message: dict[str, Any]) -> None:
    """The other way round it does not hold: a schema cannot tell a time from another text."""
    asked = {"status": "init", **message}
    try:
        decode_envelope(asked)
    except UsageError:
        return
    assert Validator(schemas.standalone("Request")).is_valid(asked)
