"""The worker's end of its channel: JSON lines on a descriptor of its own, so that stray prints cannot corrupt it.

Reports go up at a bounded rate; a request to stop, or the death of whoever started us, is noticed at the next report.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from typing import Any, Literal

import msgspec

from reconvene_agent.core import protocol
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Downward, Happening, Progress, Request, Stop, Upward

REPORTS_PER_SECOND = 4.0
ENTRY = ("-m", "reconvene_agent.worker")

StopMode = Literal["cancel", "suspend"]


class StopRequested(Exception):  # noqa: N818 - not an error
    """The other side asked us to stop, or is gone (which means ``suspend``)."""

    def __init__(self, mode: StopMode) -> None:
        super().__init__(mode)
        self.mode: StopMode = mode


class Channel:
    """Messages to and from the process that started this worker."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        os.set_inheritable(descriptor, False)
        # Without a buffer: what is not read yet can still be read by whoever this process becomes.
        self._reader = self._socket.makefile("rb", buffering=0)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._stop: StopMode | None = None
        self._last_report = 0.0
        self._last_step: Step | None = None

    def send(self, message: Upward) -> None:
        """Send one message. A closed channel is not an error here: the next report stops the work."""
        with self._lock:
            try:
                self._socket.sendall(protocol.encode(message))
            except OSError:
                self.suspend()

    def receive(self) -> Downward | None:
        """Wait for one message; None at the end of the channel.

        Raises:
            msgspec.DecodeError: the line is not a message.
        """
        try:
            line = self._reader.readline(protocol.MAX_LINE)
        except OSError:
            return None
        return protocol.decode_downward(line) if line else None

    def watch_for_stop(self) -> None:
        """Listen for ``stop`` in the background from now on."""
        threading.Thread(target=self._watch, name="stop-watch", daemon=True).start()

    def _watch(self) -> None:
        mode: StopMode = "suspend"
        try:
            message = self._wait()
            while message is not None and not isinstance(message, Stop):
                message = self._wait()
            if isinstance(message, Stop):
                mode = message.mode
        except msgspec.DecodeError:
            mode = "suspend"
        self._stop = mode

    def _wait(self) -> Downward | None:
        select.select([self._socket], [], [])
        with self._reading:
            return self.receive()

    def start_afresh(self, request: Request) -> None:
        """Become a new process with the same request, rid of all that this one has loaded; the other side does not notice.

        Comes back only where the system does not allow it: then the work goes on as it is.
        """
        self.check()
        channel = self._socket.fileno()
        # A word to stop that comes now is left for the new process to read.
        with self._reading, os.fdopen(os.memfd_create("request", 0), "wb") as file:
            file.write(protocol.encode(request))
            file.flush()
            file.seek(0)
            os.set_inheritable(channel, True)
            try:
                arguments = [sys.executable, *ENTRY, "--channel", str(channel), "--request", str(file.fileno())]
                os.execv(sys.executable, arguments)  # noqa: S606 - this very program
            except OSError:
                os.set_inheritable(channel, False)

    def suspend(self) -> None:
        """Let the work stop at its next report, to be gone on with later."""
        self._stop = self._stop or "suspend"

    def check(self) -> None:
        """Raise StopRequested if the work shall end here."""
        if self._stop is not None:
            raise StopRequested(self._stop)

    def progress(self, step: Step, fraction: float, note: str = "") -> None:
        """Report progress, at most a few times a second unless the step changes; stop here if that was asked."""
        self.check()
        now = time.monotonic()
        if step is not self._last_step or now - self._last_report >= 1.0 / REPORTS_PER_SECOND:
            self._last_step, self._last_report = step, now
            self.send(Progress(step, round(min(max(fraction, 0.0), 1.0), 4), note))

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Report something worth a record."""
        self.send(Happening(name, data))
