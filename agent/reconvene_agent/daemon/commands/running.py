"""The job that runs: its progress, its limits of time, and how it ends. Pure; the agent turns its answers into effects."""

from __future__ import annotations

from typing import Any, Literal

from msgspec.structs import replace

from reconvene_agent.core.budget import tighter
from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import EXIT_TERMINATED, ErrorCode
from reconvene_agent.core.job import Command, Failure, Status, Step, advance
from reconvene_agent.core.protocol import Done, Failed, Progress, Suspended, Upward
from reconvene_agent.daemon.board.pauses import Hold
from reconvene_agent.daemon.events import WorkerEnded
from reconvene_agent.daemon.worker.endings import explain
from reconvene_agent.daemon.worker.supervision import Action, Supervision

PUBLISH_EVERY_S = 2.0
JOURNAL_EVERY_S = 60.0
"""How often what is left of a command's ``timeout_s`` is journaled."""
REVISIONS_AHEAD = 1000
"""So far may what is published be ahead of what is journaled; a run that goes on after a restart begins beyond that."""

# Where each step lies in the whole run; most of a run is training.
_SHARES: dict[str, dict[Step, tuple[float, float]]] = {
    "specialize": {
        Step.PROBE: (0.0, 0.04),
        Step.PLAN: (0.04, 0.15),
        Step.PRUNE: (0.15, 0.17),
        Step.TRAIN: (0.17, 0.90),
        Step.EVALUATE: (0.90, 0.92),
        Step.EXPORT: (0.92, 0.98),
        Step.PROMOTE: (0.98, 1.0),
    },
    "plan": {Step.PLAN: (0.0, 1.0)},
}

StopReason = Literal["", "canceled", "timed out", "suspended", "paused"]
_DOOMS: dict[StopReason, ErrorCode] = {"canceled": ErrorCode.CANCELED, "timed out": ErrorCode.TIMED_OUT}
_DETAILS = {ErrorCode.CANCELED: "canceled on request", ErrorCode.TIMED_OUT: "the command's timeout_s was used up"}


class RunningJob:
    """One started command and the worker that does it."""

    def __init__(self, command: Command, supervision: Supervision, deadline: float | None, mono: float) -> None:
        """``deadline`` is when the command's own ``timeout_s`` is used up, on the monotonic clock."""
        self.command = command
        self.supervision = supervision
        self.started = mono
        self.note = ""
        self.stop_reason: StopReason = ""
        self.deadline = deadline
        self._published = mono
        self._journaled, self._journaled_at = command.rev, mono
        self._outcome: Done | Failed | Suspended | None = None

    @property
    def due(self) -> float | None:
        """When ``step`` wants to be called again."""
        deadline = None if self._leaving else self.deadline
        return min((time for time in (self.supervision.due, deadline) if time is not None), default=None)

    @property
    def _leaving(self) -> bool:
        return bool(self.stop_reason) or self._outcome is not None

    def hear(self, message: Upward, now: Now) -> tuple[bool, bool]:
        """Take in a message; return whether the command is to be journaled, and whether it is to be published."""
        self.supervision.heard(now.mono)
        if isinstance(message, (Done, Failed, Suspended)):
            self._outcome = message
            self.supervision.asked_to_stop(now.mono)
            return False, False
        if not isinstance(message, Progress):
            return False, False
        begin, end = _SHARES.get(self.command.op, {}).get(message.step, (0.0, 1.0))
        progress = max(self.command.progress, begin + (end - begin) * message.fraction)
        new_step = message.step is not self.command.step
        self.note = message.note
        self.command = advance(self.command, now.wall, step=message.step, progress=progress)
        due = new_step or now.mono - self._published >= PUBLISH_EVERY_S
        if due:
            self._published = now.mono
        ticking = self.deadline is not None and now.mono - self._journaled_at >= JOURNAL_EVERY_S
        save = new_step or ticking or self.command.rev - self._journaled >= REVISIONS_AHEAD
        if save:
            self._journaled, self._journaled_at = self.command.rev, now.mono
            self.command = replace(self.command, left_s=left(self.deadline, now))
        return save, due

    def stop(self, reason: StopReason, mono: float) -> bool:
        """Note that the worker is being asked to stop; False if it already was, or has finished.

        A command that is stopped for good is doomed from here on. What was only to be suspended or paused can still be canceled:
        it must not go on later.
        """
        given_up = reason == "canceled" and self.stop_reason in ("suspended", "paused")
        if (self.stop_reason and not given_up) or (self._outcome is not None and not isinstance(self._outcome, Suspended)):
            return False
        self.stop_reason = reason
        self.command = replace(self.command, doomed=_DOOMS.get(reason))
        self.supervision.asked_to_stop(mono)
        return True

    def overdue(self, mono: float) -> bool:
        """Whether the command's own time is used up."""
        return self.deadline is not None and mono >= self.deadline and not self._leaving

    def step(self, mono: float) -> Action | None:
        """Return what is due to be done to the worker."""
        return self.supervision.step(mono)

    def conclude(self, ended: WorkerEnded, now: Now) -> Command:
        """Return the command's state after its worker is gone: terminal, or still executing if it is to go on."""
        outcome = self._outcome
        if isinstance(outcome, Done):
            return advance(self.command, now.wall, Status.SUCCESSFUL, progress=1.0, result=outcome.result, reason="")
        if isinstance(outcome, Failed) and not self.stop_reason:
            return self.fail(outcome.code, outcome.message, now, outcome.result)
        if self.stop_reason in ("suspended", "paused"):
            return self._again(now, "suspended" if self.stop_reason == "suspended" else self.command.reason)
        if self.command.doomed is not None:
            return stopped(self.command, self.command.doomed, now)
        of_itself = outcome is None and ended.returncode == EXIT_TERMINATED and not (ended.broken or self.supervision.verdict)
        if of_itself or isinstance(outcome, Suspended):
            return advance(self.command, now.wall, reason="somebody has stopped the worker")
        code, detail = explain(ended, self.supervision.verdict)
        if code is ErrorCode.OOM_KILLED and self.command.ceilings_mb is None:
            ceilings = tighter(self.command.limits_mb)
            reason = "the kernel killed the worker for want of memory: planned again within less"
            return self._again(now, reason, ceilings_mb=ceilings, progress=0.0)
        return self.fail(code, detail, now)

    def _again(self, now: Now, reason: str, **changes: Any) -> Command:
        """Return the command as one that is started again, for which this start does not count."""
        attempt, left_s = max(0, self.command.attempt - 1), left(self.deadline, now)
        return advance(self.command, now.wall, attempt=attempt, left_s=left_s, reason=reason, **changes)

    def fail(self, code: ErrorCode, detail: str, now: Now, result: dict[str, Any] | None = None) -> Command:
        """Return the command as failed."""
        return failed(self.command, code, detail, now, result)


def failed(command: Command, code: ErrorCode, detail: str, now: Now, result: dict[str, Any] | None = None) -> Command:
    """Return a command as failed for this reason."""
    return advance(command, now.wall, Status.FAILED, reason=detail, error=Failure.of(code, detail), result=result)


def stopped(command: Command, doom: ErrorCode, now: Now) -> Command:
    """Return a command as failed that was being stopped for good."""
    return failed(command, doom, _DETAILS[doom], now)


def left(deadline: float | None, now: Now) -> float | None:
    """Return what is left until a deadline, in seconds; None where there is none."""
    return None if deadline is None else max(0.0, deadline - now.mono)


def beyond_all_published(command: Command) -> Command:
    """Return a command from the journal with a revision that is newer than any that was published before a crash."""
    return replace(command, rev=command.rev + REVISIONS_AHEAD)


def too_late(command: Command, hold: Hold | None, detail: str, now: Now, otherwise: ErrorCode = ErrorCode.EXPIRED) -> Command:
    """Return a command as failed because its time is over; what has kept it waiting, if anything, decides the code."""
    if hold is None:
        return failed(command, otherwise, detail, now)
    return failed(command, hold.code(otherwise), f"{detail} while it was {hold.reason}", now)
