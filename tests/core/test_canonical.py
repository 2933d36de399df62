"""RFC 8785: its own examples, and that whatever JSON says is written so that it says the same again."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.canonical import MAX_SAFE_INTEGER, canonical

# RFC 8785, appendix B: the bits of a number, and how it is written.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}

LIMITS = (-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(*LIMITS) | st.floats(*LIMITS) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(("bits", "written"), NUMBERS.items())
def test_numbers_as_in_the_standard(bits: str, written: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number).decode() == written


@pytest.mark.parametrize(
    ("number", "written"),
    [(1, "1"), (1.0, "1"), (-5, "-5"), (0.5, "0.5"), (10.25, "10.25"), (1e21, "1e+21"), (123e-9, "1.23e-7")],
)
def test_numbers_of_every_shape(number: float, written: str) -> None:
    assert canonical(number).decode() == written


def test_the_example_of_the_standard() -> None:
    document = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert canonical(document).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_their_utf_16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    expected = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(msgspec.json.decode(canonical(dict.fromkeys(names, 0)))) == expected


@pytest.mark.parametrize("document", [2**53, -(2**53), [1, {"x": 2**64}], float("nan"), float("inf"), {1, 2}])
def test_what_readers_do_not_agree_on_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="is"):
        canonical(document)


@given(documents)
def test_it_says_the_same_and_is_written_the_same_again(document: Any) -> None:
    written = canonical(document)
    again = msgspec.json.decode(written)
    assert again == document
    assert canonical(again) == written
