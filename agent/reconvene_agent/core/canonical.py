"""Canonical JSON (RFC 8785, JCS): one sequence of bytes for one document, whoever writes it and in whatever language."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly."""
_PLAIN_DIGITS = 21
_LEAST_PLAIN_EXPONENT = -6


def canonical(document: Any) -> bytes:
    """Return a decoded JSON document as RFC 8785 writes it: keys by UTF-16 code units, no spaces, numbers as in ECMAScript.

    Raises:
        ValueError: it holds what JSON readers do not agree on: a whole number beyond 2^53 - 1, or no number at all.
    """
    return _written(document).encode()


def _written(value: Any) -> str:
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_plain(name)}:{_written(each)}" for name, each in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return _plain(value)
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError(f"{value} is a whole number that not every JSON reader keeps exactly")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    raise ValueError(f"{type(value).__name__} is not JSON")


def _plain(value: str | bool | None) -> str:
    # msgspec escapes in strings what RFC 8785 wants escaped, in the same way, and nothing else.
    return msgspec.json.encode(value).decode()


def _number(value: float) -> str:
    """Write a float as ECMAScript's Number::toString does; Python finds the same shortest digits and sets them differently."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{value} is not JSON")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + part) - len(digits))  # where the point stands in these digits
    digits = digits.rstrip("0")
    if len(digits) <= point <= _PLAIN_DIGITS:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= _PLAIN_DIGITS:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _LEAST_PLAIN_EXPONENT < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{point - 1:+d}"
