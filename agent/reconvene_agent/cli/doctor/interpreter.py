"""The worker's interpreter, started for real and listened to until it has loaded every library, ends, or takes too long."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.cli.doctor.account import Account
from reconvene_agent.core.decoding import from_json
from reconvene_agent.daemon.worker.process import environment

_MODULE = "reconvene_agent.worker.inspection"
_MOST_BYTES = 1 << 16

_facts = msgspec.json.Decoder(dict[str, Any])


class Told(Struct, frozen=True):
    """What an interpreter told of itself.

    Attributes:
        facts: its lines, in order, as ``reconvene_agent.worker.inspection`` writes them.
        rubbish: the first line that was none of these; empty when there was none.
        code: how it ended, negative for a signal; None when it had to be killed, since its time was over.
        stderr: the end of what it wrote there.
        seconds: how long it took.
    """

    facts: tuple[dict[str, Any], ...]
    rubbish: str
    code: int | None
    stderr: str
    seconds: float


def listen(python: str, account: Account, limit_s: float) -> Told:
    """Start an interpreter as the account, where we may, and return what it told within ``limit_s`` seconds.

    Raises:
        OSError: it cannot be started.
    """
    me = Account.of_this_process()
    other: dict[str, Any] = {}
    if me.uid == 0 and account.uid != 0:
        other = {"user": account.uid, "group": account.gid, "extra_groups": account.groups}
    started = time.monotonic()
    kept = {"out": b"", "err": b""}
    code, process = None, None
    try:
        with _uninterrupted():
            process = subprocess.Popen(
                [python or sys.executable, "-m", _MODULE],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env=environment(1),
                **other,
            )
        if _drain(process, kept, started + limit_s):
            code = process.wait(max(0.0, started + limit_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # it has closed its streams, and stays all the same
    finally:
        if process is not None:
            _end(process)
    facts, rubbish = _understood(kept["out"])
    return Told(facts, rubbish, code, kept["err"].decode("utf-8", "replace").strip(), time.monotonic() - started)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block is over: in its middle there is a process that nobody would end."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it is gone
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def _drain(process: subprocess.Popen[bytes], kept: dict[str, bytes], deadline: float) -> bool:
    """Keep what a process writes until it closes both streams; return whether it has by then."""
    with selectors.DefaultSelector() as waiting:
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            waiting.register(stream, selectors.EVENT_READ, name)
        while waiting.get_map():
            left = deadline - time.monotonic()
            ready = waiting.select(left) if left > 0 else []
            if not ready:
                return False
            for key, _ in ready:
                piece = os.read(key.fd, _MOST_BYTES)
                if not piece:
                    waiting.unregister(key.fileobj)
                kept[key.data] = (kept[key.data] + piece)[-_MOST_BYTES:]
    return True


def _understood(out: bytes) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return the lines up to the first that is none of the module's, and that one."""
    facts: list[dict[str, Any]] = []
    lines = out.splitlines()
    try:
        facts.extend(from_json(line, _facts.decode) for line in lines)
    except msgspec.DecodeError:
        return tuple(facts), lines[len(facts)][:60].decode("utf-8", "replace")
    return tuple(facts), ""
