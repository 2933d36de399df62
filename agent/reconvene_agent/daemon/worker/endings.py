"""What the end of a worker means when it left without an outcome: the error code and the line for people."""

from __future__ import annotations

import signal

from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.daemon.events import WorkerEnded

# Signals that somebody sends, as opposed to those that a crash raises.
_SENT = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def explain(ended: WorkerEnded, verdict: str) -> tuple[ErrorCode, str]:
    """Return code and detail; ``verdict`` is the supervision's, if it was what ended the worker."""
    if ended.broken:
        return ErrorCode.INTERNAL, f"the worker broke its protocol: {ended.broken}"
    if verdict:
        return ErrorCode.TIMED_OUT, f"the worker was stopped: {verdict}"
    if ended.out_of_memory:
        return ErrorCode.OOM_KILLED, "the kernel killed the worker for want of memory: lower the training batch or the budget"
    last = next((line.strip() for line in reversed(ended.stderr.splitlines()) if line.strip()), "")
    hint = f": {last[:300]}" if last else ""
    if ended.returncode >= 0:
        return ErrorCode.INTERNAL, f"the worker left with exit code {ended.returncode} and no result{hint}"
    try:
        name = signal.Signals(-ended.returncode).name
    except ValueError:
        name = f"signal {-ended.returncode}"
    if -ended.returncode in _SENT:
        return ErrorCode.INTERRUPTED, f"the worker was ended by {name} from outside"
    return ErrorCode.INTERNAL, f"the worker crashed with {name}{hint}"
