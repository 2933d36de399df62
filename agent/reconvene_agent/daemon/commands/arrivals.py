"""What becomes of commands that come, from the fleet or from the agent itself: accepted, refused, or known already. Pure.

Nothing is started here: what is accepted is scheduled, and its life begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import msgspec

from reconvene_agent.core.census import Census
from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status, advance
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.release import Release
from reconvene_agent.core.topics import CommandTopic, Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands import intake, own_runs
from reconvene_agent.daemon.commands.book import CommandBook, waits_for
from reconvene_agent.daemon.commands.ledger import Ledger
from reconvene_agent.daemon.commands.line import Line, behind, no_room
from reconvene_agent.daemon.commands.running import RunningJob, failed
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import reports
from reconvene_agent.daemon.security.trust import Trust

Effects = Iterator[Effect]


class Jobs(Protocol):
    """What is asked of the jobs that are there when a command comes."""

    stopping: bool

    @property
    def running(self) -> RunningJob | None: ...

    @property
    def started(self) -> Command | None: ...


class Arrivals:
    """The commands that come to one agent; ``defaults`` fills in what they leave out."""

    def __init__(
        self, topics: Topics, defaults: dict[str, Any], book: CommandBook, ledger: Ledger, trust: Trust, jobs: Jobs
    ) -> None:
        self._topics = topics
        self._defaults = defaults
        self._book = book
        self._ledger = ledger
        self._trust = trust
        self._jobs = jobs
        self._line = Line(book)

    def receive(self, event: events.Received, topic: CommandTopic, now: Now) -> Effects:
        """Take in a message on a command's topic."""
        label = f"{topic.op}/{topic.id}"
        known = self._book.get(label)
        trust = partial(self._trust.check, topic, self._book.every(), now)
        found = intake.sort_message(event, topic, known, now, self._defaults, trust)
        if isinstance(found, intake.Accepted):
            yield from self._accept(found, now)
        elif isinstance(found, intake.Refused):
            yield from self._ledger.refuse(found, known, now)
        elif isinstance(found, intake.Orphan):
            yield from self._ledger.lost(found, now)
        elif isinstance(found, intake.Stale):
            yield from self._ledger.still_shown(topic, known)
        elif known is None:
            return
        elif isinstance(found, intake.Repeated):
            yield from self._ledger.repeat(known)
        elif isinstance(found, intake.Cleared):
            yield from self._ledger.note_cleared(known, now)
        elif found.rev > known.rev:
            # Progress is published more often than it is journaled, so after a restart the broker may know a newer rev.
            yield from self._catch_up(known, found.rev)

    def new_data(self, found: Census, release: Release | None, share: float, now: Now) -> Effects:
        """Start a run by ourselves if the data have grown by this ``share`` since what they were last trained or tried on."""
        trained = None if release is None else release.data
        command = own_runs.for_new_data(found, trained, self._book.every(), share, now)
        if trained is not None and command is not None and self._may_begin(command):
            yield reports.data_changed(self._topics, found, trained, command, now.wall)
            yield from self._begin(command, now)

    def drifted(self, release: Release, now: Now) -> Effects:
        """Start a run by ourselves since the ``release`` that serves no longer fits its budget, once for each."""
        command = own_runs.for_drift(release, now)
        if self._may_begin(command):
            yield from self._begin(command, now)

    def _may_begin(self, command: Command) -> bool:
        """Whether a command of our own can be given now: it was not given before, and no other job is there."""
        idle = not self._jobs.stopping and not any(OPERATIONS[other.op].is_job for other in self._book.unfinished())
        return idle and self._book.get(command.label) is None

    def _begin(self, command: Command, now: Now) -> Effects:
        """Accept a command that the agent gives itself; it starts like any other."""
        yield do.Log("info", f"{command.label} is begun by the agent itself: {command.request['cause']['what']}", command.label)
        yield from self._ledger.keep(advance(command, now.wall, Status.SCHEDULED), first=True)

    def _catch_up(self, known: Command, rev: int) -> Effects:
        run = self._jobs.running
        if run is not None and run.command.label == known.label:
            known = run.command = msgspec.structs.replace(run.command, rev=rev + 1)
        yield from self._ledger.keep(msgspec.structs.replace(known, rev=rev + 1))

    def _accept(self, found: intake.Accepted, now: Now) -> Effects:
        command = found.command
        is_job = OPERATIONS[command.op].is_job
        waiting = waits_for(found.envelope, now)
        ahead = self._line.jobs(self._jobs.started, now) if is_job and not waiting else []
        if waiting:
            busy = self._line.no_room_until(command, now)
        else:
            busy = "the agent is stopping" if is_job and self._jobs.stopping else no_room(ahead)
        if busy:
            yield from self._ledger.refuse(intake.Refused(failed(command, ErrorCode.BUSY, busy, now)), None, now)
            return
        waiting = waiting or (behind(ahead[0]) if ahead else "")
        scheduled = self._book.put(advance(command, now.wall, Status.SCHEDULED, reason=waiting))
        yield do.Log("info", f"{command.label} is accepted" + (f"; it {waiting}" if waiting else ""), command.label)
        if is_job or waiting:
            yield do.Save(scheduled, first=True)
            yield self._ledger.publish(scheduled)
        elif self._trust.demanded(command.op):
            yield do.Save(scheduled)  # before anything is done: its signature is used from now on, whatever happens
