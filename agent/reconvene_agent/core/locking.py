"""A lock on a folder: one process at a time changes what is in it. It goes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconvene_agent.core.errors import AgentError, ErrorCode

PATIENCE_S = 5.0
LOOK_AGAIN_S = 0.02


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against everybody else who asks.

    Raises:
        OSError: there is no such folder.
        AgentError: BUSY when somebody else holds it for long; one that was stopped half way, say.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise AgentError(f"somebody else is changing {folder}: try again", ErrorCode.BUSY)
            time.sleep(LOOK_AGAIN_S)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
