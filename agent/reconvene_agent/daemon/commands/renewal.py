"""What the agent comes up again for: restarts, and settings that commands change. Pure.

Changed settings are on trial when the agent comes up with them. They hold as soon as it has; if they are those of the broker, as
soon as it has reached that. Otherwise they are taken back, and the agent comes up again with those before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from reconvene_agent.core import updatable
from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command, Status, advance
from reconvene_agent.core.messages import ConfigUpdateArgs, RestartArgs
from reconvene_agent.core.overlay import MAX_STARTS, Outcome, Overlay
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands.book import CommandBook
from reconvene_agent.daemon.commands.ledger import Ledger
from reconvene_agent.daemon.commands.running import failed
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting.identity import Identity

RETRY_S = 10.0

OPERATIONS = ("config_update", "restart")

Effects = Iterator[Effect]


class Jobs(Protocol):
    """What a renewal needs of the jobs beside it."""

    stopping: bool

    @property
    def started(self) -> Command | None: ...

    def stop_to_come_again(self, now: Now) -> Effects: ...


class Renewal:
    """The renewals of one agent; ``overlay`` is what it has come up with."""

    def __init__(self, identity: Identity, book: CommandBook, ledger: Ledger, jobs: Jobs, overlay: Overlay, now: Now) -> None:
        self._identity = identity
        self._book = book
        self._ledger = ledger
        self._jobs = jobs
        self._overlay = overlay
        trial = overlay.trial
        self._verdict: tuple[bool, str] | None = None
        self._settle_at = None if trial is None else now.mono + trial.seconds

    @property
    def due(self) -> float | None:
        """When, on the monotonic clock, a trial must be settled, or that be tried again."""
        return self._settle_at

    # --- commands --------------------------------------------------------------------------------------------------------

    def check(self, command: Command, args: ConfigUpdateArgs | RestartArgs) -> None:
        """Look whether a command can be done now.

        Raises:
            AgentError: BUSY with something else.
        """
        other = next((each for each in self._book.unfinished() if _under_way(each) and each.label != command.label), None)
        if other is not None:
            raise AgentError(f"busy with {other.label}", ErrorCode.BUSY)
        if self._jobs.stopping:
            raise AgentError("busy: the agent is stopping", ErrorCode.BUSY)
        if self._overlay.trial is not None:
            raise AgentError(f"busy: the settings of {self._overlay.trial.by.split()[0]} are on trial", ErrorCode.BUSY)
        job = self._jobs.started
        if job is not None and isinstance(args, ConfigUpdateArgs):
            guiding = [name for name in args.set if name.partition(".")[0] in updatable.GUIDES_JOBS]
            if guiding:
                raise AgentError(f"busy with {job.label}, which goes by {', '.join(guiding)}", ErrorCode.BUSY)

    def begin(self, command: Command, args: ConfigUpdateArgs | RestartArgs) -> Effects:
        """Do what a command asks for that is executing, and journaled when the first of this is done."""
        yield self._ledger.publish(command)
        if isinstance(args, ConfigUpdateArgs):
            yield do.UpdateSettings(command.label, command.name, args.set, args.trial_s)
        else:
            yield do.AskRestart(command.label)

    def go_on(self, command: Command, args: ConfigUpdateArgs | RestartArgs, now: Now) -> Effects:
        """Go on with a command that was executing when the agent stopped."""
        trial, last = self._overlay.trial, self._overlay.last
        if isinstance(args, RestartArgs):
            yield from self._succeed(command, {"pid": self._identity.pid, "version": self._identity.version}, now)
        elif last is not None and last.by == command.name:
            yield from self._end(command, last, now)
        elif trial is not None and trial.by == command.name:
            return  # it is settled when its time has come
        elif command.attempt >= MAX_STARTS:
            detail = f"the agent stopped {MAX_STARTS} times before the settings were written down"
            yield from self._ledger.finish(failed(command, ErrorCode.INTERRUPTED, detail, now))
        else:
            yield from self._ledger.keep(advance(command, now.wall, attempt=command.attempt + 1))
            yield do.UpdateSettings(command.label, command.name, args.set, args.trial_s)

    def restart_asked(self, event: events.RestartAsked, now: Now) -> Effects:
        """Stop, to come up again."""
        command = self._book.get(event.label)
        if command is not None and command.status is Status.EXECUTING:
            yield do.Log("info", "the agent is restarted on command", command.label)
            yield from self._jobs.stop_to_come_again(now)

    def updated(self, event: events.SettingsUpdated, now: Now) -> Effects:
        """Take in what came of changed settings: a trial, which begins with a restart, or an end."""
        command = self._book.get(event.label)
        if command is None or command.status is not Status.EXECUTING:
            return
        if event.overlay is None:
            yield from self._ledger.finish(failed(command, event.code, event.detail, now))
        elif event.overlay.trial is None:
            assert event.overlay.last is not None
            yield from self._end(command, event.overlay.last, now)
        else:
            yield do.Log(
                "info", f"the agent comes up again on trial with changed {_listed(event.overlay.trial.changed)}", event.label
            )
            yield from self._jobs.stop_to_come_again(now)

    # --- the trial -------------------------------------------------------------------------------------------------------

    def came_up(self) -> Effects:
        """The agent has come up: settings on trial hold unless the broker is to be reached with them."""
        trial = self._overlay.trial
        if trial is not None and not trial.needs_broker:
            yield from self._settle(True, "")

    def connected(self) -> Effects:
        """The broker was reached: settings on trial hold."""
        if self._overlay.trial is not None:
            yield from self._settle(True, "")

    def step(self, why: str, now: Now) -> Effects:
        """Settle a trial whose time is over; ``why`` tells what has become of the connection."""
        trial = self._overlay.trial
        if trial is None or self._settle_at is None or now.mono < self._settle_at:
            return
        held, detail = self._verdict or (False, f"the broker was not reached within {trial.seconds:g} s: {why}")
        yield from self._settle(held, detail)

    def _settle(self, held: bool, detail: str) -> Effects:
        self._verdict, self._settle_at = (held, detail), None
        yield do.SettleSettings(held, detail)

    def settled(self, event: events.SettingsSettled, now: Now) -> Effects:
        """Take in that the trial is over; without the settings it was about the agent comes up again."""
        if event.overlay is None:
            yield do.Log("error", f"that settings have {'' if self._held else 'not '}held cannot be written down: {event.detail}")
            self._settle_at = now.mono + RETRY_S
            return
        self._overlay = event.overlay
        last = event.overlay.last
        if last is None:
            return
        command = next((each for each in self._book.unfinished() if each.name == last.by), None)
        if command is not None and command.status is Status.EXECUTING:
            yield from self._end(command, last, now)
        if not last.held:
            yield do.Log("warning", f"changed settings are taken back: {last.detail}", last.by.split()[0])
            yield from self._jobs.stop_to_come_again(now)

    @property
    def _held(self) -> bool:
        return self._verdict is not None and self._verdict[0]

    def _end(self, command: Command, outcome: Outcome, now: Now) -> Effects:
        if outcome.held:
            yield from self._succeed(command, {"changed": outcome.changed}, now)
        else:
            detail = f"rolled back: {outcome.detail}"
            yield from self._ledger.finish(failed(command, ErrorCode.VERIFY_FAILED, detail, now))

    def _succeed(self, command: Command, result: dict[str, Any], now: Now) -> Effects:
        yield from self._ledger.finish(advance(command, now.wall, Status.SUCCESSFUL, progress=1.0, result=result))


def _under_way(command: Command) -> bool:
    return command.op in OPERATIONS and command.status is Status.EXECUTING


def _listed(names: list[str]) -> str:
    return ", ".join(names)
