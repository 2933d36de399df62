"""Time as a value: what the clocks said when an event was handled, and how times are written."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

_Moment = Annotated[datetime, Meta(tz=True)]


class Now(Struct, frozen=True):
    """One reading of the clocks.

    Attributes:
        wall: seconds since the epoch, UTC; may jump.
        mono: seconds of a clock that never goes back; means nothing after a restart.
        synchronized: whether a time service vouches for ``wall``.
    """

    wall: float
    mono: float
    synchronized: bool = True


def rfc3339(wall: float) -> str:
    """Write seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wall_seconds(value: str | float) -> float:
    """Read an RFC 3339 time with its offset, or a number of seconds since the epoch.

    Raises:
        msgspec.ValidationError: neither of the two.
    """
    if isinstance(value, (int, float)):
        return float(value)
    return msgspec.convert(value, _Moment).timestamp()
