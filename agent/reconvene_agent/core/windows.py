"""Training windows: times of the day, local, within which a board may train. ``22:00-06:00`` goes over midnight."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from msgspec import Struct

_TEXT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")


class Window(Struct, frozen=True):
    """From ``begins`` until before ``ends``, in minutes since midnight; over midnight where it ends before it begins."""

    begins: int
    ends: int

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begins, self.ends))

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day lies within."""
        if self.begins < self.ends:
            return self.begins <= minute < self.ends
        return minute >= self.begins or minute < self.ends


def parse(text: str) -> Window:
    """Read a window such as ``01:00-05:00``.

    Raises:
        ValueError: it is none.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} must look like 01:00-05:00")
    hours_minutes = [int(group) for group in found.groups() if group is not None]
    window = Window(hours_minutes[0] * 60 + hours_minutes[1], hours_minutes[2] * 60 + hours_minutes[3])
    if window.begins == window.ends:
        raise ValueError(f"{text!r} must end at another time than it begins; 00:00-24:00 is the whole day")
    return window


def mistake(text: str) -> str:
    """Return what is wrong with a window's text; empty when nothing is."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


def open_at(windows: Iterable[Window], wall: float) -> bool:
    """Whether any window is open at a moment, in seconds since the epoch."""
    local = time.localtime(wall)
    return any(window.holds(local.tm_hour * 60 + local.tm_min) for window in windows)


def next_opening(windows: Iterable[Window], wall: float) -> float:
    """Return when, after ``wall``, a window begins next, in seconds since the epoch."""
    local = time.localtime(wall)
    moments = (
        time.mktime((local.tm_year, local.tm_mon, local.tm_mday + day, 0, window.begins, 0, 0, 0, -1))
        for window in windows
        for day in (0, 1)
    )
    return min(moment for moment in moments if moment > wall)
