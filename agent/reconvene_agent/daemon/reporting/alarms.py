"""Alarms: what is wrong with the board or its model until it is right again; retained on the broker, and in the status. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.effects import Effect

Severity = Literal["critical", "major", "minor", "warning"]
Name = Literal["over_budget", "release_broken", "over_temperature", "under_voltage", "disk_nearly_full", "certificate"]
NAMES: tuple[Name, ...] = get_args(Name)


class Alarm(Struct, frozen=True):
    """An alarm that stands: one line for people, how bad it is, and since when."""

    text: str
    severity: Severity
    time: str


class Alarms:
    """The alarms of one agent."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._standing: dict[Name, Alarm] = {}

    @property
    def problems(self) -> list[str]:
        """Return one line for each alarm that stands."""
        return [alarm.text for alarm in self._standing.values()]

    def sound(self, name: Name, text: str, severity: Severity, wall: float) -> Iterator[Effect]:
        """Let an alarm stand. The same again is no news; another text or severity replaces what was said, not since when."""
        before = self._standing.get(name)
        alarm = Alarm(text, severity, rfc3339(wall) if before is None else before.time)
        if alarm == before:
            return
        self._standing[name] = alarm
        yield do.Log("warning", text)
        yield self._publication(name)

    def clear(self, name: Name) -> Iterator[Effect]:
        """Let an alarm stand no longer."""
        if self._standing.pop(name, None) is not None:
            yield do.Log("info", f"the alarm {name} is over")
            yield self._publication(name)

    def announce(self) -> Iterator[Effect]:
        """Tell the broker of every alarm whether it stands: it may keep one of an earlier session."""
        for name in NAMES:
            yield self._publication(name)

    def _publication(self, name: Name) -> Effect:
        alarm = self._standing.get(name)
        return do.Publish(self._topics.alarm(name), b"" if alarm is None else msgspec.json.encode(alarm))
