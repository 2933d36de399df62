"""Reading JSON and TOML that somebody else wrote: whatever is wrong with it becomes one exception."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

_PLACE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<where>.+)`", re.DOTALL)

MAX_DEPTH = 64
"""Levels of nesting that are read. Far more would be read once, and then be too deep to be written again."""

_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)

T = TypeVar("T")


def from_json(raw: bytes, decode: Callable[[bytes], T]) -> T:
    """Return what ``decode``, a msgspec decoder's, makes of JSON.

    Raises:
        msgspec.ValidationError: it is JSON, but not what the decoder wants.
        msgspec.DecodeError: it is not JSON, not UTF-8, or nested deeper than MAX_DEPTH.
    """
    if _deep(raw):
        raise msgspec.DecodeError(f"it is nested deeper than {MAX_DEPTH} levels")
    try:
        return decode(raw)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error


def from_toml(raw: bytes, kind: type[T]) -> T:
    """Return TOML as a ``kind``.

    Raises:
        msgspec.ValidationError: it is TOML, but not what is wanted.
        msgspec.DecodeError: it is not TOML, not UTF-8, or holds more levels or digits than Python reads.
    """
    try:
        return msgspec.toml.decode(raw, type=kind)
    except msgspec.DecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def located(error: Exception) -> str:
    """Return what msgspec found wrong as ``where: what``."""
    found = _PLACE.fullmatch(str(error))
    return f"{found['where']}: {found['what']}" if found else str(error)


def _deep(raw: bytes) -> bool:
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(raw):
        token = found[0]
        if token in (b"{", b"["):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token in (b"}", b"]"):
            depth -= 1
    return False
