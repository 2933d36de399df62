"""Entry of the worker process: ``python -m reconvene_agent.worker --channel FD``.

Shakes hands, takes one request, runs it and leaves. Standard output goes where standard error goes. A worker that starts
afresh in the middle of its work is handed the request as a file, and has shaken hands already.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import time
import traceback

import msgspec

from reconvene_agent import __version__
from reconvene_agent.core import atomic, protocol
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.protocol import Done, Failed, Ready, Stop, Suspended
from reconvene_agent.worker.channel import Channel, StopRequested
from reconvene_agent.worker.expendable import become_expendable

# Whoever sends SIGTERM follows it with SIGKILL after five seconds or more; a checkpoint then is either whole or the one before.
LEAVE_WITHIN_S = 4.0
TERMINATED = 143
# What torch and ONNX Runtime, which have no exception for it, say when memory is refused them.
OUT_OF_MEMORY = ("can't allocate memory", "Cannot allocate memory", "bad_alloc", "bad allocation")


def _leave_on_sigterm(channel: Channel) -> None:
    """Stop at the next safe point on SIGTERM; where none comes in time, leave all the same.

    In a thread of its own, since a handler would wait for the main one, which may be in the middle of a long computation.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        channel.suspend()
        time.sleep(LEAVE_WITHIN_S)
        os._exit(TERMINATED)

    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m reconvene_agent.worker")
    parser.add_argument("--channel", type=int, required=True, metavar="FD")
    parser.add_argument("--request", type=int, metavar="FD", help="a file with the request, of a worker that starts afresh")
    given = parser.parse_args(arguments)
    # A Ctrl-C in the terminal reaches the whole process group; who started us decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    become_expendable()
    channel = Channel(given.channel)
    _leave_on_sigterm(channel)
    try:
        if given.request is None:
            channel.send(Ready(protocol.VERSION, __version__, os.getpid()))
            request = channel.receive()
        else:
            with os.fdopen(given.request, "rb") as file:
                request = protocol.decode_downward(file.read())
        if request is None or isinstance(request, Stop):
            return 0
    except msgspec.DecodeError as error:
        channel.send(Failed(ErrorCode.INTERNAL, f"the request cannot be read: {error}"))
        return 0
    channel.watch_for_stop()
    outcome = _run(channel, request)
    try:
        channel.send(outcome)
    except ValueError as error:
        channel.send(Failed(ErrorCode.INTERNAL, f"the outcome cannot be told: {error}"))
    return 0


def _asked(error: Exception) -> str:
    """Return how much memory was refused, where the library says so."""
    found = re.search(r"allocate (\d+) bytes", str(error))
    return "" if found is None else f", {int(found[1]) / 2**20:.0f} MiB more were needed"


def _run(channel: Channel, request: protocol.Request) -> Done | Failed | Suspended:
    try:
        from reconvene_agent.worker import operations

        with atomic.full_disk_is_no_disk("working"):
            return Done(operations.run(request, channel))
    except StopRequested as stop:
        return Suspended() if stop.mode == "suspend" else Failed(ErrorCode.CANCELED, "canceled on request")
    except AgentError as error:
        return Failed(error.code, error.message, error.result)
    except ImportError as error:
        missing = error.name or str(error)
        return Failed(ErrorCode.INTERNAL, f"{sys.executable} lacks {missing}: install 'reconvene-agent[worker]' there")
    except OSError as error:
        traceback.print_exc()
        where = f"{error.filename}: " if error.filename else ""
        return Failed(ErrorCode.INTERNAL, f"{where}{error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever went wrong, the other side gets an answer
        traceback.print_exc()
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            return Failed(
                ErrorCode.NO_MEMORY, f"the board ran out of memory{_asked(error)}: lower the training batch or the budget"
            )
        return Failed(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}".partition("\n")[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
