"""The operations that need no worker and are answered at once: each done, and its command finished. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command, Status, advance
from reconvene_agent.core.messages import (
    Args,
    CancelArgs,
    ConfigUpdateArgs,
    LogUploadArgs,
    PromoteArgs,
    RestartArgs,
    RollbackArgs,
    decode_args,
    envelope_of,
)
from reconvene_agent.core.overlay import Overlay
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands import renewal
from reconvene_agent.daemon.commands.book import CommandBook
from reconvene_agent.daemon.commands.ledger import Ledger
from reconvene_agent.daemon.commands.paused import Paused
from reconvene_agent.daemon.commands.renewal import Renewal
from reconvene_agent.daemon.commands.running import RunningJob, failed
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import deployed, reports
from reconvene_agent.daemon.reporting.identity import Identity

Effects = Iterator[Effect]


RENEWALS = (ConfigUpdateArgs, RestartArgs)
JOURNALED = (RollbackArgs, PromoteArgs, LogUploadArgs, *RENEWALS)
"""What is journaled before it begins, since it ends later."""


class Jobs(renewal.Jobs, Protocol):
    """What an errand needs of the jobs beside it."""

    running: RunningJob | None

    @property
    def state(self) -> str: ...


class Errands:
    """The errands of one agent; ``defaults`` fills in what commands leave out."""

    def __init__(
        self,
        identity: Identity,
        defaults: dict[str, Any],
        book: CommandBook,
        ledger: Ledger,
        paused: Paused,
        jobs: Jobs,
        overlay: Overlay,
        now: Now,
    ) -> None:
        self._identity = identity
        self._defaults = defaults
        self._book = book
        self._ledger = ledger
        self._paused = paused
        self._jobs = jobs
        self.renewal = Renewal(identity, book, ledger, jobs, overlay, now)

    def do(self, command: Command, now: Now) -> Effects:
        """Do what a scheduled command asks for."""
        executing = advance(command, now.wall, Status.EXECUTING, attempt=1)
        try:
            args = decode_args(command.op, envelope_of(command).args, self._defaults)
            if isinstance(args, RENEWALS):
                self.renewal.check(executing, args)
            if isinstance(args, JOURNALED):
                executing = self._book.put(executing)
                # What had to wait is in the journal already.
                yield do.Save(executing, first=not command.reason)
                yield from self._begin(executing, args)
                return
            if isinstance(args, CancelArgs):
                yield from self._cancel(executing, args, now)
                return
            if command.op in ("pause", "resume"):
                effects = list(self._paused.order(executing.label if command.op == "pause" else "", now))
                result = {"paused": self._paused.text(now)}
            else:
                result, effects = {"state": self._jobs.state, "version": self._identity.version}, []
        except AgentError as error:
            yield from self._ledger.finish(failed(executing, error.code, error.message, now))
            return
        yield from effects
        yield from self._ledger.finish(advance(executing, now.wall, Status.SUCCESSFUL, progress=1.0, result=result))

    def _begin(self, command: Command, args: Args) -> Effects:
        """Begin what is journaled; the outcome comes back as an event."""
        if isinstance(args, RENEWALS):
            yield from self.renewal.begin(command, args)
        elif isinstance(args, LogUploadArgs):
            yield do.ReadLog(command.label, args.lines, args.level, "" if args.command is msgspec.UNSET else args.command)
        else:
            assert isinstance(args, (RollbackArgs, PromoteArgs))
            yield do.SwitchRelease(command.label, command.name, args.version if isinstance(args, PromoteArgs) else args.steps)

    def go_on(self, command: Command, now: Now) -> Effects:
        """Go on with a command that was executing when the agent stopped."""
        try:
            args = decode_args(command.op, envelope_of(command).args, self._defaults)
        except AgentError as error:
            yield from self._ledger.finish(failed(command, error.code, error.message, now))
            return
        if isinstance(args, RENEWALS):
            yield from self.renewal.go_on(command, args, now)
        elif isinstance(args, LogUploadArgs):  # some of it may have been sent
            yield from self._ledger.finish(failed(command, ErrorCode.INTERRUPTED, "the agent stopped while it read the log", now))
        else:
            yield from self._begin(command, args)

    def log_read(self, event: events.LogRead, now: Now) -> Effects:
        """Send the lines of the log that a command asked for."""
        command = self._book.get(event.label)
        if command is None or command.status is not Status.EXECUTING:
            return
        parts = len(event.parts)
        for number, lines in enumerate(event.parts, 1):
            yield reports.event(
                self._identity.topics, "log", now.wall, command=event.label, part=number, parts=parts, lines=lines
            )
        result = {"lines": sum(map(len, event.parts)), "parts": parts}
        yield from self._ledger.finish(advance(command, now.wall, Status.SUCCESSFUL, progress=1.0, result=result))

    def release_switched(self, event: events.ReleaseSwitched, now: Now) -> Effects:
        """Finish the command that asked for another release."""
        command = self._book.get(event.label)
        if command is None or command.status is not Status.EXECUTING:
            return
        if event.switch is None:
            yield from self._ledger.finish(failed(command, event.code, event.detail, now))
            return
        yield deployed.switched(self._identity, command.label, event, now.wall)
        yield from self._ledger.finish(advance(command, now.wall, Status.SUCCESSFUL, progress=1.0, result=deployed.told(event)))
        yield do.ReadRelease()

    def _cancel(self, asking: Command, args: CancelArgs, now: Now) -> Effects:
        """Stop the command meant; stopping one that has ended, or nothing at all, is no mistake.

        What becomes of that command is journaled together with the answer: a crash leaves both done, or neither.
        """
        run, held = self._jobs.running, self._paused.held
        target = self._jobs.started if args.id is msgspec.UNSET else self._book.find(args.id, besides=asking.label)
        changed = target
        effects: Effects = iter(())
        if target is None:
            pass
        elif run is not None and target.label == run.command.label:
            if run.stop("canceled", now.mono):
                changed = run.command
                log = do.Log("info", f"{target.label} is being stopped: canceled", target.label)
                effects = iter((log, do.AskWorker("cancel")))
            elif run.stop_reason != "canceled":
                target = changed = None  # it has just finished, or is being stopped for another reason
        elif target.status is Status.EXECUTING and (held is None or target.label != held.label):
            target = changed = None  # what is begun without a worker nothing stops any more
        else:
            when = "before it started" if target.status is Status.SCHEDULED else "while it was paused"
            changed = failed(target, ErrorCode.CANCELED, f"canceled {when}", now)
            effects = self._ledger.tell_end(changed)
            self._paused.held = held if target.status is Status.SCHEDULED else None
        result = {"canceled": None if target is None else target.label}
        ending = advance(asking, now.wall, Status.SUCCESSFUL, progress=1.0, result=result)
        yield from self._ledger.store(ending, changed)
        yield from effects
        yield from self._ledger.tell_end(ending)
