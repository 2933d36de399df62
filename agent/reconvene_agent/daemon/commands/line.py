"""Who may wait: one job in line behind the one that runs or is held back, and some commands for their time. Pure.

A command that waits for its ``not_before``, or for the clock, has no place in line until its time has come. Then it has one,
even where another job waits already; only new jobs find the line full.
"""

from __future__ import annotations

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.job import Command
from reconvene_agent.core.messages import OPERATIONS, envelope_of
from reconvene_agent.daemon.commands.book import CommandBook, waits_for

MAX_WAITING = 16
"""So many commands may wait for their time, with so many bytes of requests in all."""
MAX_WAITING_BYTES = 1 << 18


def behind(ahead: Command) -> str:
    """Return the reason of a command that waits for another one to end."""
    return f"waits behind {ahead.label}"


def no_room(jobs: list[Command]) -> str:
    """Return why a new job finds no place in this line; empty when it does."""
    return "" if len(jobs) < 2 else f"busy with {jobs[0].label}, and {jobs[1].label} waits"


class Line:
    """The line of one agent's commands."""

    def __init__(self, book: CommandBook) -> None:
        self._book = book

    def jobs(self, started: Command | None, now: Now) -> list[Command]:
        """Return the jobs whose time has come, in order; the one that has ``started`` is the first."""
        ready = [each for each in self._book.scheduled() if OPERATIONS[each.op].is_job and not waits_for(envelope_of(each), now)]
        return ready if started is None else [started, *ready]

    def no_room_until(self, command: Command, now: Now) -> str:
        """Return why a new command that has to wait for its time cannot; empty when it can."""
        waiting = [each for each in self._book.scheduled() if waits_for(envelope_of(each), now)]
        size = sum(len(msgspec.json.encode(each.request)) for each in (*waiting, command))
        if len(waiting) < MAX_WAITING and size <= MAX_WAITING_BYTES:
            return ""
        return f"busy: {len(waiting)} commands wait for their time already"
