"""One worker process: started, listened to, stopped. Everything it says or does becomes an event for the owner.

Anything but the protocol's words on its channel gets it killed; what it writes to stderr is read, bounded and kept apart.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Literal

import msgspec

from reconvene_agent.core import heap, protocol
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.protocol import Ready, Request, Stop
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from reconvene_agent.daemon.probe import oom

STDERR_TAIL = 8192
LINGER_S = 10.0
DRAIN_S = 2.0

Post = Callable[[WorkerSaid | WorkerEnded], None]
Log = Callable[[str], None]


class WorkerProcess:
    """A running worker. ``post`` is called from threads of this object; it may block, which slows the worker down."""

    def __init__(self, key: str, request: Request, post: Post, log: Log, python: str = "", threads: int = 1) -> None:
        """Start the worker and hand it the request.

        Raises:
            AgentError: the interpreter cannot be started.
        """
        self.key = key
        self._post = post
        self._log = log
        self._broken = ""
        self._tail = b""
        self._oom_before = oom.kills()
        interpreter = python or sys.executable
        ours, theirs = socket.socketpair()
        # A socket for stderr too: unlike a pipe, it can be shut for the thread that reads it.
        stderr, their_stderr = socket.socketpair()
        with theirs, their_stderr:
            try:
                self._process = subprocess.Popen(
                    [interpreter, "-m", "reconvene_agent.worker", "--channel", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=their_stderr.fileno(),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    cwd="/",
                    env=environment(threads),
                )
            except OSError as error:
                ours.close()
                stderr.close()
                raise AgentError(f"the worker cannot be started: {interpreter}: {error.strerror}") from error
        self._channel, self._stderr = ours, stderr
        self._send(request)
        self._readers = (
            (threading.Thread(target=self._read_channel, name="worker-channel", daemon=True), ours),
            (threading.Thread(target=self._read_stderr, name="worker-stderr", daemon=True), stderr),
        )
        for thread, _ in self._readers:
            thread.start()
        threading.Thread(target=self._wait, name="worker-wait", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask_to_stop(self, mode: Literal["cancel", "suspend"]) -> None:
        """Ask the worker to stop at the next safe point."""
        self._send(Stop(mode))

    def terminate(self) -> None:
        """Send SIGTERM to the worker and whatever it started."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the worker and whatever it started."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """Kill the worker and wait, though not for ever, until it is gone."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DRAIN_S)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # already gone

    def _send(self, message: Request | Stop) -> None:
        try:
            self._channel.sendall(protocol.encode(message))
        except OSError:
            pass  # the waiter will report its end

    def _read_channel(self) -> None:
        greeted = False
        with self._channel.makefile("rb") as lines:
            while True:
                try:
                    line = lines.readline(protocol.MAX_LINE + 1)
                except OSError:
                    break
                if not line:
                    break
                try:
                    message = protocol.decode_upward(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    self._broken = f"it sent {_shown(line)} instead of a message"
                    break
                if not greeted and not (isinstance(message, Ready) and message.protocol == protocol.VERSION):
                    self._broken = f"it did not greet with protocol {protocol.VERSION}: {_shown(line)}"
                    break
                greeted = True
                self._post(WorkerSaid(self.key, message))
        if self._broken:
            self.kill()
            return
        try:
            self._process.wait(LINGER_S)
        except subprocess.TimeoutExpired:
            self._broken = "it closed its channel and stayed"
            self.kill()

    def _read_stderr(self) -> None:
        limiter = _LineLimiter(self._log)
        with contextlib.suppress(OSError):
            while piece := self._stderr.recv(8192):
                self._tail = (self._tail + piece)[-STDERR_TAIL:]
                limiter.feed(piece)
        limiter.close()

    def _wait(self) -> None:
        returncode = self._process.wait()
        # A grandchild may hold the channel or stderr open for ever; what it has to say is no longer of interest.
        self.kill()
        for thread, end in self._readers:
            thread.join(DRAIN_S)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        killed = returncode == -signal.SIGKILL and not self._broken and oom.kills() > self._oom_before
        self._post(WorkerEnded(self.key, returncode, self._broken, killed, self._tail.decode("utf-8", "replace")))


class _LineLimiter:
    """Passes on the first lines of a flood and then counts the rest."""

    MAX_LINES = 200
    MAX_LENGTH = 500

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rest = b""
        self._lines = 0

    def feed(self, piece: bytes) -> None:
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[-self.MAX_LENGTH :]
        for line in lines:
            self._lines += 1
            if self._lines <= self.MAX_LINES and line.strip():
                self._log(line[: self.MAX_LENGTH].decode("utf-8", "replace"))

    def close(self) -> None:
        if self._rest.strip():
            self.feed(b"\n")
        if self._lines > self.MAX_LINES:
            self._log(f"… and {self._lines - self.MAX_LINES} more lines, not shown")


def _shown(line: bytes) -> str:
    return repr(line[:60]) + ("…" if len(line) > 60 else "")


SPINS = "10000"
"""On two x86-64 cores with three busy processes beside it, ResNet-20 trained 2.9 times as fast with this as with the default of
300,000, and 5 % slower with nothing beside it; without spinning at all 40 % slower."""
# What is meant for the daemon's own process: systemd's sockets, its control group, and settings that keep it small.
_OURS = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "RECONVENE_AGENT_DELEGATED", "MALLOC_ARENA_MAX"})


def environment(threads: int) -> dict[str, str]:
    """Return the worker's environment: threads as the profile wants them, no import from the current folder, little memory.

    Threads that wait for each other spin for some microseconds only, then sleep. By default OpenMP's spin far longer, which on a
    board with other work to do keeps from the processor the very thread that they wait for.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
    ours = {"OMP_NUM_THREADS": str(max(1, threads)), "GOMP_SPINCOUNT": SPINS, "PYTHONSAFEPATH": "1"}
    return heap.kept_together({**inherited, **ours})
