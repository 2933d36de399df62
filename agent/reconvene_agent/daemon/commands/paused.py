"""What is paused: the job that has no worker for now, the commands that wait for the board, and looking after it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, advance
from reconvene_agent.core.messages import OPERATIONS, envelope_of
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.board.pauses import LOOK_EVERY_S, PAUSED, Guard, Hold
from reconvene_agent.daemon.commands.book import CommandBook, waits_for
from reconvene_agent.daemon.commands.running import failed
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import announce, reports

Effects = Iterator[Effect]


class Held(Struct, frozen=True):
    """A job that has started and is paused, so that it has no worker; ``deadline`` as a RunningJob's."""

    label: str
    deadline: float | None


class Paused:
    """The pauses of one agent's jobs. ``hold`` is what keeps a job waiting now, or would on command."""

    def __init__(self, topics: Topics, book: CommandBook, guard: Guard) -> None:
        self._topics = topics
        self._book = book
        self.guard = guard
        self.held: Held | None = None
        self.hold: Hold | None = None
        self._look_at: float | None = None

    @property
    def job(self) -> Command | None:
        """The job that has started and is paused."""
        return None if self.held is None else self._book.get(self.held.label)

    @property
    def first(self) -> Command | None:
        """The paused job, else the first command that would start if nothing held it back."""
        return self.job or next((each for each in self._book.scheduled() if each.reason.startswith(PAUSED)), None)

    @property
    def waits_for(self) -> str | None:
        """What keeps a job waiting now, or would on command, in words."""
        return None if self.hold is None else self.hold.text

    def text(self, now: Now) -> str | None:
        """Return what training waits for now, or would."""
        hold = self.guard.hold("specialize", now)
        return None if hold is None else hold.text

    def due(self) -> Iterator[float | None]:
        """Return when something is due, on the monotonic clock."""
        yield self._look_at
        yield None if self.held is None else self.held.deadline

    def keep(self, command: Command, hold: Hold, deadline: float | None, now: Now) -> Effects:
        """Keep a job that has lost its worker until nothing holds it back any more."""
        self.held = Held(command.label, deadline)
        yield from self.wait(command, hold, now)

    def wait(self, command: Command, hold: Hold, now: Now) -> Effects:
        """Tell what a command waits for, if that is news."""
        if command.reason == hold.reason:
            return
        command = self._book.put(advance(command, now.wall, reason=hold.reason))
        yield do.Save(command)
        yield announce.state(self._topics, command)
        yield do.Log("info", f"{command.label} is {hold.reason}", command.label)
        yield reports.event(self._topics, "paused", now.wall, command=command.label, cause=hold.cause, reason=hold.text)

    def note(self, waits_for: Hold | None, now: Now) -> None:
        """Note what keeps a job waiting now: the paused one, else those for which ``waits_for`` holds."""
        self.hold = (None if self.job is None else self.guard.hold(self.job.op, now)) or waits_for or self.guard.order

    def goes_on(self, command: Command, now: Now) -> Effects:
        """Tell that a command is paused no more, if it was."""
        if command.reason.startswith(PAUSED):
            yield do.Log("info", f"{command.label} goes on", command.label)
            yield reports.event(self._topics, "resumed", now.wall, command=command.label)

    def cannot_wait(self, command: Command, hold: Hold, now: Now) -> Command | None:
        """Return as failed a command that has not started and expires before a window opens; None where it can wait."""
        expires = envelope_of(command).expires_at
        if hold.cause != "window" or expires is None or expires > (opens := self.guard.opens_at(now)):
            return None
        detail = f"the command expires before a training window opens, which is at {rfc3339(opens)}"
        return failed(command, ErrorCode.OUTSIDE_WINDOW, detail, now)

    def watch(self, runs: bool, now: Now) -> Effects:
        """Look at the board every few seconds while a job runs or waits for it."""
        if not runs and self.held is None and not any(self._ready(now)):
            self._look_at = None
        elif self._look_at is None or now.mono >= self._look_at:
            self._look_at = now.mono + LOOK_EVERY_S
            yield do.Look()

    def _ready(self, now: Now) -> Iterator[bool]:
        """Tell of each scheduled command whether it is a job that nothing but the board keeps waiting."""
        return (OPERATIONS[each.op].is_job and not waits_for(envelope_of(each), now) for each in self._book.scheduled())

    def order(self, ordered_by: str, now: Now) -> Effects:
        """Pause everything by the word of somebody, or, when empty, pause it no more."""
        if bool(ordered_by) == bool(self.guard.ordered_by):
            return
        self.guard.ordered_by = ordered_by
        yield do.KeepPause(ordered_by)
        if ordered_by:
            yield do.Log("info", f"paused on command ({ordered_by})")
            yield reports.event(self._topics, "paused", now.wall, command=None, cause="command", reason=ordered_by)
        else:
            yield do.Log("info", "no longer paused on command")
            yield reports.event(self._topics, "resumed", now.wall, command=None)
