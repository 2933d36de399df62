from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from reconvene_agent.core.decoding import MAX_DEPTH, from_json, from_toml, located
from support.values import NASTY_JSON, json_values

decode = msgspec.json.Decoder(dict[str, Any]).decode


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@given(st.dictionaries(st.text(), json_values))
def test_json_is_read(document: dict[str, Any]) -> None:
    assert from_json(msgspec.json.encode(document), decode) == document


@pytest.mark.parametrize("raw", NASTY_JSON.values(), ids=NASTY_JSON.keys())
def test_bad_json_is_one_exception(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_json(raw, decode)


@given(st.binary())
def test_no_bytes_are_another_exception(raw: bytes) -> None:
    try:
        assert isinstance(from_json(raw, decode), dict)
    except msgspec.DecodeError:
        pass


def test_nesting_has_a_limit() -> None:
    from_json(nested(MAX_DEPTH), decode)
    with pytest.raises(msgspec.DecodeError, match="deeper than 64 levels"):
        from_json(nested(MAX_DEPTH + 1), decode)


def test_many_brackets_side_by_side_or_in_texts_are_not_deep() -> None:
    wide = {"lists": [[] for _ in range(500)], "text": "[{" * 500, 'quoted "[{ \\"': '\\"[[' * 500}
    assert from_json(msgspec.json.encode(wide), decode) == wide


class Inner(Struct):
    b: Annotated[int, Meta(ge=1)]


class Outer(Struct, forbid_unknown_fields=True):
    a: list[Inner] = []


TOML = {
    "deep": b"a=" + b"[" * 5000,
    "long number": b"a=" + b"1" * 5000,
    "no text": b"a='\xff'",
    "no date": b"a=2021-13-45",
    "no value": b"a=",
    "twice": b"a=1\na=2",
}


@pytest.mark.parametrize("raw", TOML.values(), ids=TOML.keys())
def test_bad_toml_is_one_exception(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_toml(raw, dict)


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_as_toml_are_another_exception(raw: bytes) -> None:
    try:
        assert isinstance(from_toml(raw, dict), dict)
    except msgspec.DecodeError:
        pass


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [{"b": "x"}]}, "a[0].b: Expected `int`, got `str`"),
        ({"a": [{"b": 0}]}, "a[0].b: Expected `int` >= 1"),
        ({"c": 1}, "Object contains unknown field `c`"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(value: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Outer)
    assert located(caught.value) == told
