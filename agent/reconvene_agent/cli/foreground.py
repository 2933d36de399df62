"""A worker run in the foreground for one command: progress on stderr, Ctrl-C and SIGTERM stop it at a safe point."""

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
from reconvene_agent.core.config import WorkerSection
from reconvene_agent.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, AgentError, ErrorCode, UsageError
from reconvene_agent.core.protocol import Done, Failed, Happening, Request, Suspended
from reconvene_agent.core.protocol import Progress as ProgressMessage
from reconvene_agent.daemon.endings import explain
from reconvene_agent.daemon.supervision import Action, Supervision
from reconvene_agent.daemon.worker_process import WorkerEnded, WorkerProcess, WorkerSaid

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
) -> dict[str, Any]:
    """Run a request in a worker of its own and return its result document.

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
    worker = WorkerProcess("foreground", request, events.put, say if debug else _drop, limits.python, threads)
    try:
        with progress_for(sys.stderr) as progress:
            resumable = isinstance(request, protocol.SpecializeRequest)
            return _Conversation(worker, Supervision(limits, time.monotonic()), progress, resumable).run(events)
    finally:
        worker.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _drop(line: str) -> None:
    """Without --debug what a worker writes to stderr is kept for the error message only."""


class _Conversation:
    def __init__(self, worker: WorkerProcess, supervision: Supervision, progress: Progress, resumable: bool) -> None:
        self._worker = worker
        self._resumable = resumable
        self._supervision = supervision
        self._progress = progress
        self._outcome: Done | Failed | Suspended | None = None
        self._stopped_by: signal.Signals | None = None

    def run(self, events: queue.SimpleQueue[Event]) -> dict[str, Any]:
        while True:
            due = self._supervision.due
            try:
                event = events.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                self._enforce()
                continue
            if isinstance(event, WorkerSaid):
                self._hear(event)
            elif isinstance(event, WorkerEnded):
                return self._conclude(event)
            else:
                self._stop(event)

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
        self._worker.ask_to_stop("suspend")
        self._supervision.asked_to_stop(time.monotonic())

    def _conclude(self, ended: WorkerEnded) -> dict[str, Any]:
        if isinstance(self._outcome, Done):
            return self._outcome.result
        if isinstance(self._outcome, Failed):
            raise AgentError(self._outcome.message, self._outcome.code, self._outcome.result)
        if self._stopped_by is not None:
            again = "run the same command again to go on" if self._resumable else "nothing was changed"
            raise StoppedError(self._stopped_by, f"stopped: {again}")
        code, detail = explain(ended, self._supervision.verdict)
        raise AgentError(detail, code)
