"""The life of every command that was accepted: started, followed, stopped, finished. Pure; at most one job runs at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import Config
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status, Step, advance
from reconvene_agent.core.messages import OPERATIONS, envelope_of
from reconvene_agent.core.overlay import Overlay
from reconvene_agent.core.protocol import Happening
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.board.pauses import Guard, Hold
from reconvene_agent.daemon.commands import intake
from reconvene_agent.daemon.commands.arrivals import Arrivals
from reconvene_agent.daemon.commands.book import CommandBook, expired, waits_for
from reconvene_agent.daemon.commands.errands import Errands
from reconvene_agent.daemon.commands.ledger import Ledger
from reconvene_agent.daemon.commands.line import behind
from reconvene_agent.daemon.commands.paused import Paused
from reconvene_agent.daemon.commands.running import RunningJob, beyond_all_published, failed, left, stopped, too_late
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from reconvene_agent.daemon.reporting import reports
from reconvene_agent.daemon.reporting.identity import Identity
from reconvene_agent.daemon.security.trust import Trust
from reconvene_agent.daemon.worker.supervision import Action, Supervision

Effects = Iterator[Effect]


class Commands:
    """The commands of one agent. ``known`` is what the journal held; ``defaults`` fills in what commands leave out."""

    def __init__(
        self,
        identity: Identity,
        config: Config,
        known: Iterable[Command],
        defaults: dict[str, Any],
        guard: Guard,
        trust: Trust,
        overlay: Overlay,
        now: Now,
    ) -> None:
        self._topics = identity.topics
        self._limits = config.worker
        self._book = CommandBook(known)
        self.ledger = Ledger(identity, self._book, trust)
        self._guard = guard
        self.paused = Paused(identity.topics, self._book, guard)
        self.errands = Errands(identity, defaults, self._book, self.ledger, self.paused, self, overlay, now)
        self.arrivals = Arrivals(identity.topics, defaults, self._book, self.ledger, trust, self)
        self.running: RunningJob | None = None
        self.stopping = False
        self.again = False
        """Whether the agent stops to come up again."""

    @property
    def state(self) -> str:
        """The word for what the agent is doing."""
        if self.stopping:
            return "stopping"
        if self.running is not None:
            return self.running.command.op
        return "idle" if self.paused.hold is None else "paused"

    @property
    def started(self) -> Command | None:
        """The job that runs or, having started, is paused."""
        return self.paused.job if self.running is None else self.running.command

    def due(self, now: Now) -> float | None:
        """Return when something is due with a command, on the monotonic clock."""
        times = (
            self._book.next_start(now),
            None if self.running is None else self.running.due,
            *self.paused.due(),
            self.errands.renewal.due,
        )
        return min((time for time in times if time is not None), default=None)

    # --- life ------------------------------------------------------------------------------------------------------------

    def resume(self, now: Now) -> Effects:
        """Go on with what was executing when the agent stopped, unless it has had its attempts."""
        for command in self._book.unfinished():
            if command.status is not Status.EXECUTING:
                continue
            if not OPERATIONS[command.op].is_job:
                yield from self.errands.go_on(command, now)
                continue
            newer = beyond_all_published(command)
            if command.doomed is not None:
                yield from self.ledger.finish(stopped(newer, command.doomed, now))
                continue
            yield do.Log("info", f"{command.label} goes on after a restart", command.label)
            deadline = None if command.left_s is None else now.mono + command.left_s
            yield from self._go_on(newer, "the agent stopped during this run", now, deadline)

    def _go_on(self, command: Command, why: str, now: Now, deadline: float | None = None) -> Effects:
        """Start a worker again for a command that is executing without one, as soon as nothing holds it back.

        ``why`` says what has become of the worker before.
        """
        if self.started is not None or command.attempt >= self._limits.attempts:
            detail = f"{why}; {command.attempt} of {self._limits.attempts} attempts are used up"
            yield from self.ledger.finish(failed(command, ErrorCode.INTERRUPTED, detail, now))
            return
        hold = self._guard.hold(command.op, now)
        if hold is None:
            yield from self._launch(command, now, deadline)
        else:
            yield from self.paused.keep(command, hold, deadline, now)

    def stop_for_good(self, now: Now) -> Effects:
        """Stop, and do not come up again, whoever wanted that."""
        yield from self._stop(now, again=False)

    def stop_to_come_again(self, now: Now) -> Effects:
        """Stop, and come up again, unless the agent is already stopping for good."""
        yield from self._stop(now, again=self.again or not self.stopping)

    def _stop(self, now: Now, again: bool) -> Effects:
        """Ask the running job to keep a checkpoint and leave; nothing new starts from now on."""
        self.stopping, self.again = True, again
        if self.running is not None and self.running.stop("suspended", now.mono):
            yield do.Log("info", f"stopping; {self.running.command.label} keeps a checkpoint", self.running.command.label)
            yield do.AskWorker("suspend")
        held, job = self.paused.held, self.paused.job
        if held is not None and job is not None and held.deadline is not None:
            yield from self.ledger.store(msgspec.structs.replace(job, left_s=left(held.deadline, now)))

    def start_due(self, now: Now) -> Effects:
        """Start, or refuse as expired, the commands whose time has come, as far as the board may work."""
        reason, ahead = None, None
        for command in self._book.scheduled():
            if self._book.get(command.label) is not command:
                continue  # one before it has just canceled it
            envelope = envelope_of(command)
            is_job = OPERATIONS[command.op].is_job
            hold = self._guard.hold(command.op, now) if is_job else None
            if expired(envelope, now):
                yield from self.ledger.finish(too_late(command, hold, "the command expired before it could start", now))
            elif waits_for(envelope, now):
                continue
            elif not is_job:
                yield from self.errands.do(command, now)
            elif self.stopping:
                continue
            elif hold is not None and (late := self.paused.cannot_wait(command, hold, now)) is not None:
                yield from self.ledger.finish(late)
            elif self.started is not None or (hold is not None and ahead is not None):
                yield from self._line_up(command, self.started or ahead, hold, now)
            elif hold is not None:
                reason, ahead = hold, command
                yield from self.paused.wait(command, hold, now)
            elif self._guard.fresh(now):
                yield from self._launch(advance(command, now.wall, Status.EXECUTING), now)
        yield from self._heed(now)
        self.paused.note(reason, now)
        yield from self.paused.watch(self.running is not None, now)

    def _line_up(self, command: Command, ahead: Command | None, hold: Hold | None, now: Now) -> Effects:
        """Tell behind which other job a command waits, if that is news and it is not paused itself."""
        if ahead is None or command.reason == behind(ahead) or (hold is not None and command.reason == hold.reason):
            return
        yield from self.paused.goes_on(command, now)
        yield from self.ledger.keep(advance(command, now.wall, reason=behind(ahead)))

    def _heed(self, now: Now) -> Effects:
        """Pause what runs, or go on with what is paused, as the board fares."""
        run, held, command = self.running, self.paused.held, self.started
        if command is None:
            return
        hold = self._guard.hold(command.op, now)
        if run is not None:
            if hold is not None and run.stop("paused", now.mono):
                yield from self.paused.wait(command, hold, now)
                run.command = self._book.get(command.label) or command
                yield do.AskWorker("suspend")
        elif held is not None and held.deadline is not None and now.mono >= held.deadline:
            self.paused.held = None
            late = too_late(command, hold, "the command's timeout_s was used up", now, ErrorCode.TIMED_OUT)
            yield from self.ledger.finish(late)
        elif held is not None and hold is not None:
            yield from self.paused.wait(command, hold, now)
        elif held is not None and self._guard.fresh(now) and not self.stopping:
            self.paused.held = None
            yield from self._launch(command, now, held.deadline)

    def _launch(self, command: Command, now: Now, deadline: float | None = None) -> Effects:
        """Start the worker for a command that is executing, whether anew or again; ``deadline`` if it has one from before."""
        yield from self.paused.goes_on(command, now)
        timeout = envelope_of(command).timeout_s
        if deadline is None and timeout is not None:
            deadline = now.mono + timeout
        attempt, left_s = command.attempt + 1, left(deadline, now)
        command = advance(command, now.wall, attempt=attempt, step=Step.PROBE, reason="", left_s=left_s)
        command = self._book.put(command)
        self.running = RunningJob(command, Supervision(self._limits, now.mono), deadline, now.mono)
        yield do.Save(command)
        yield do.Launch(command)
        yield self.ledger.publish(command)

    # --- the worker ------------------------------------------------------------------------------------------------------

    def worker_said(self, event: WorkerSaid, now: Now) -> Effects:
        """Take in a message of the worker."""
        run = self.running
        if run is None or event.key != run.command.key:
            return
        save, publish = run.hear(event.message, now)
        run.command = self._book.put(run.command)
        if save:
            yield do.Save(run.command)
        if publish:
            yield self.ledger.publish(run.command)
        if isinstance(event.message, Happening):
            yield from reports.records(self._topics, run.command, event.message, now.wall)
            if event.message.name == "release":
                yield do.ReadRelease()

    def worker_ended(self, event: WorkerEnded, now: Now) -> Effects:
        """Take in the end of the worker: the end of its command, unless that was suspended."""
        run = self.running
        if run is None or event.key != run.command.key:
            return
        self.running = None
        command = run.conclude(event, now)
        if command.status.terminal:
            yield from self.ledger.finish(command)
        else:
            yield from self.ledger.keep(command)
            if command.ceilings_mb != run.command.ceilings_mb:
                yield do.Log("warning", f"{command.label}: {command.reason}", command.label)
                yield do.Clean(command.key)
                yield reports.replanned(self._topics, command, now.wall)
            if not self.stopping:
                yield from self._go_on(command, command.reason, now, run.deadline)
        yield do.ReadRelease()

    def launched(self, event: events.Launched, _now: Now) -> Effects:
        """Keep the limits that a worker was told: if it runs out of memory they were too much."""
        run = self.running
        if run is not None and event.key == run.command.key and event.limits_mb != run.command.limits_mb:
            run.command = self._book.put(msgspec.structs.replace(run.command, limits_mb=event.limits_mb))
            yield do.Save(run.command)

    def launch_failed(self, event: events.LaunchFailed, now: Now) -> Effects:
        """Finish a command whose worker could not be started."""
        run = self.running
        if run is not None and event.key == run.command.key:
            self.running = None
            yield from self.ledger.finish(run.fail(event.code, event.detail, now))

    def journal_failed(self, event: events.JournalFailed, now: Now) -> Effects:
        """Answer a command that could not be journaled: it is as if it had never been accepted."""
        command = self._book.get(event.label)
        if command is None:
            return
        self._book.remove(event.label)
        if self.running is not None and self.running.command.label == event.label:
            self.running = None
        detail = f"the command cannot be journaled: {event.detail}; free some disk and send it again"
        refusal = failed(msgspec.structs.replace(command, status=Status.INIT), ErrorCode.NO_DISK, detail, now)
        yield from self.ledger.refuse(intake.Refused(refusal), None, now)

    def supervise(self, now: Now) -> Effects:
        """Do what is due to a worker that is late."""
        if self.running is None:
            return
        if self.running.overdue(now.mono) and self.running.stop("timed out", now.mono):
            yield from self.ledger.store(self.running.command)
            yield do.Log("info", f"{self.running.command.label} is being stopped: timed out", self.running.command.label)
            yield do.AskWorker("cancel")
        action = self.running.step(now.mono)
        if action is not None:
            why = self.running.supervision.verdict or "it does not stop"
            label = self.running.command.label
            yield do.Log("warning", f"the worker of {label} is ended: {why}", label)
            yield do.EndWorker(hard=action is Action.KILL)
