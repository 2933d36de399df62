"""A worker run in the foreground for one command: progress on stderr, Ctrl-C and SIGTERM stop it at a safe point.

With a guard it pauses where the board is too hot or its supply too weak, and goes on by itself.
"""

from __future__ import annotations

import queue
import signal
import sys
import time
from types import FrameType
from typing import Any

from reconvene_agent.cli.output import say
from reconvene_agent.cli.progress import Progress, progress_for
from reconvene_agent.core import protocol
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import WorkerSection
from reconvene_agent.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, AgentError, ErrorCode, UsageError
from reconvene_agent.core.kernel.files import HOST
from reconvene_agent.core.protocol import Done, Failed, Happening, Request, Suspended
from reconvene_agent.core.protocol import Progress as ProgressMessage
from reconvene_agent.daemon.board.pauses import LOOK_EVERY_S, Guard, Hold
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from reconvene_agent.daemon.probe.strain import read_strain
from reconvene_agent.daemon.worker.endings import explain
from reconvene_agent.daemon.worker.process import WorkerProcess
from reconvene_agent.daemon.worker.supervision import Action, Supervision

STOPPED = "stopped: run the same command again to go on"

Event = WorkerSaid | WorkerEnded | signal.Signals


class StoppedError(AgentError):
    """The user stopped the work."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        super().__init__(message, ErrorCode.INTERRUPTED)
        self.number = number

    @property
    def exit_code(self) -> int:
        return EXIT_TERMINATED if self.number is signal.SIGTERM else EXIT_INTERRUPTED


def run_worker(
    request: Request,
    limits: WorkerSection,
    threads: int,
    debug: bool = False,
    guard: Guard | None = None,
) -> dict[str, Any]:
    """Run a request in a worker of its own and return its result document; ``guard`` is for one that can be resumed.

    Raises:
        AgentError: the request is too long or holds what is no text, the worker failed, or the user stopped it.
    """
    try:
        protocol.encode(request)
    except ValueError as error:
        raise UsageError(f"this cannot be handed to a worker: {error}") from error
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()  # its put is safe in a signal handler
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        events.put(signal.Signals(number))

    for number in previous:
        signal.signal(number, on_signal)
    resumable = isinstance(request, protocol.SpecializeRequest)
    try:
        with progress_for(sys.stderr) as progress:
            paused = ""
            while True:
                _wait_for_the_board(guard, events, progress, paused)
                worker = WorkerProcess("foreground", request, events.put, say if debug else _drop, limits.python, threads)
                try:
                    talk = _Conversation(worker, Supervision(limits, time.monotonic()), progress, resumable, guard)
                    result = talk.run(events)
                finally:
                    worker.kill()
                if result is not None:
                    return result
                paused = talk.paused
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _drop(line: str) -> None:
    """Without --debug what a worker writes to stderr is kept for the error message only."""


def _hold(guard: Guard) -> Hold | None:
    """Look at the board and return what work has to wait for."""
    now = Now(time.time(), time.monotonic())
    guard.feel(read_strain(HOST), now)
    return guard.hold("specialize", now)


def _wait_for_the_board(guard: Guard | None, events: queue.SimpleQueue[Event], progress: Progress, told: str) -> None:
    """Wait until nothing keeps a worker from being started; ``told`` is why the one before was paused, as was said.

    Raises:
        StoppedError: the user does not wait so long.
    """
    while guard is not None and (hold := _hold(guard)) is not None:
        if hold.reason != told:
            told = hold.reason
            progress.say(told)
        try:
            event = events.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            continue
        if isinstance(event, signal.Signals):
            raise StoppedError(event, STOPPED)
    if told:
        progress.say("going on")


class _Conversation:
    def __init__(
        self, worker: WorkerProcess, supervision: Supervision, progress: Progress, resumable: bool, guard: Guard | None
    ) -> None:
        self._worker = worker
        self._resumable = resumable
        self._supervision = supervision
        self._progress = progress
        self._outcome: Done | Failed | Suspended | None = None
        self._stopped_by: signal.Signals | None = None
        self.paused = ""
        """Why the worker was asked to leave for a while."""
        self._guard = guard
        self._look_at = float("inf") if guard is None else time.monotonic() + LOOK_EVERY_S

    def run(self, events: queue.SimpleQueue[Event]) -> dict[str, Any] | None:
        """Return the worker's result, or None when it was paused and has left."""
        while True:
            self._heed_the_board()
            due = self._supervision.due
            wait = min(self._look_at, float("inf") if due is None else due) - time.monotonic()
            try:
                event = events.get(timeout=None if wait == float("inf") else max(0.0, wait))
            except queue.Empty:
                self._enforce()
                continue
            if isinstance(event, WorkerSaid):
                self._hear(event)
            elif isinstance(event, WorkerEnded):
                return self._conclude(event)
            else:
                self._stop(event)

    def _heed_the_board(self) -> None:
        if self._guard is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        hold = _hold(self._guard)
        if hold is not None and not (self.paused or self._stopped_by or self._outcome):
            self.paused = hold.reason
            self._progress.say(self.paused)
            self._ask_to_suspend()

    def _enforce(self) -> None:
        action = self._supervision.step(time.monotonic())
        if action is Action.TERMINATE:
            self._worker.terminate()
        elif action is Action.KILL:
            self._worker.kill()

    def _hear(self, event: WorkerSaid) -> None:
        self._supervision.heard(time.monotonic())
        message = event.message
        if isinstance(message, ProgressMessage):
            self._progress.update(message)
        elif isinstance(message, Happening):
            self._progress.happened(message)
        elif isinstance(message, (Done, Failed, Suspended)):
            self._outcome = message
            self._supervision.asked_to_stop(time.monotonic())

    def _stop(self, number: signal.Signals) -> None:
        if self._stopped_by is not None:
            self._worker.kill()
            return
        self._stopped_by = number
        self._progress.say("stopping at a safe point; once more to stop at once")
        self._ask_to_suspend()

    def _ask_to_suspend(self) -> None:
        self._worker.ask_to_stop("suspend")
        self._supervision.asked_to_stop(time.monotonic())

    def _conclude(self, ended: WorkerEnded) -> dict[str, Any] | None:
        if isinstance(self._outcome, Done):
            return self._outcome.result
        if isinstance(self._outcome, Failed):
            raise AgentError(self._outcome.message, self._outcome.code, self._outcome.result)
        if self._stopped_by is not None:
            raise StoppedError(self._stopped_by, STOPPED if self._resumable else "stopped: nothing was changed")
        if self.paused:
            return None
        code, detail = explain(ended, self._supervision.verdict)
        raise AgentError(detail, code)
