"""What devices say, as far as it can be believed: of the right type, bounded, fit for a terminal. Pure; raises nothing."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.core import clock
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.job import Status
from reconvene_agent.core.messages import decode_object

MAX_TEXT = 200
MAX_NUMBER = 1e15
LATEST = 253402300799.0
"""The last second that can be written as a date."""


def clean(text: str, most: int = MAX_TEXT) -> str:
    """Return text on one line, without what moves a cursor or turns the writing direction, in at most ``most`` characters."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def harmless(value: Any) -> Any:
    """Return a JSON value whose texts hold nothing that a JSON writer leaves as it is and a terminal does not."""
    if isinstance(value, str):
        return "".join(letter if letter < "\x7f" or letter.isprintable() else "?" for letter in value)
    if isinstance(value, dict):
        return {harmless(name): harmless(content) for name, content in value.items()}
    if isinstance(value, list):
        return [harmless(content) for content in value]
    return value


def document(payload: bytes | None) -> dict[str, Any] | None:
    """Return a payload's JSON object, or None when it is no such thing or too large."""
    try:
        return None if payload is None else decode_object(payload)
    except AgentError:
        return None


def text(said: dict[str, Any], name: str, most: int = MAX_TEXT) -> str:
    """Return a text, cleaned; empty when there is none."""
    value = said.get(name)
    return clean(value, most) if isinstance(value, str) else ""


def number(said: dict[str, Any], name: str, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float | None:
    """Return a finite number from ``low`` to ``high``, or None."""
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if low <= value <= high and math.isfinite(value) else None


def moment(said: dict[str, Any], name: str) -> float | None:
    """Return a time in seconds since the epoch, or None."""
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        wall = clock.wall_seconds(value)
    except (msgspec.ValidationError, ValueError, OverflowError, OSError):
        return None
    return wall if 0.0 <= wall <= LATEST else None


class Answer(Struct, frozen=True):
    """What an agent says of one command. ``issued_at`` is the request's own, which tells whose command it answers."""

    status: Status
    issued_at: Any
    step: str
    progress: float | None
    reason: str
    code: str
    result: Any

    @property
    def where(self) -> str:
        """How far it is, in words."""
        share = "" if self.progress is None or not self.step else f" {self.progress:.0%}"
        step = f" {self.step}{share}" if self.step and not self.status.terminal else ""
        why = f": {self.code + ': ' if self.code else ''}{self.reason}" if self.code or self.reason else ""
        return f"{self.status.value}{step}{why}"


def answer(said: dict[str, Any]) -> Answer | None:
    """Return what an agent says of a command; None for the request itself, and for what makes no sense."""
    status = said.get("status")
    if not isinstance(said.get("rev"), int) or not isinstance(status, str) or status not in Status._value2member_map_:
        return None
    error = said.get("error")
    return Answer(
        status=Status(status),
        issued_at=said.get("issued_at"),
        step=text(said, "step", 20),
        progress=number(said, "progress", 0.0, 1.0),
        reason=text(said, "reason"),
        code=text(error, "code", 40) if isinstance(error, dict) else "",
        result=harmless(said.get("result")),
    )
