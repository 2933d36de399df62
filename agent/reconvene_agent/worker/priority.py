"""Training at low priority, so that the board's own applications stay quick, and measuring at the priority that those have.

A process without privileges can lower its priority but never raise it again. So one thread is kept aside at the normal
one. It measures; all others step back. Training in a thread of its own instead would be simpler, but torch would then keep
a second team of OpenMP threads, and two teams on the same cores wait for each other: small models trained 40 % slower.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

NICENESS = 10

Result = TypeVar("Result")


class Priority:
    """The priority of this process's threads: lowered once for all but one, which is there until the ``with`` ends."""

    def __init__(self) -> None:
        self._aside = ThreadPoolExecutor(1, "normal-priority")
        self._thread = self._aside.submit(threading.get_native_id).result()

    def __enter__(self) -> Priority:
        return self

    def __exit__(self, *_: object) -> None:
        self._aside.shutdown()

    def lower(self) -> None:
        """Let every thread step back but the one aside; threads started later inherit it from who starts them.

        The main thread, which does all reading and writing, comes last at the disk as well.
        """
        try:
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
        except (psutil.Error, OSError):
            pass  # a sandbox or an old kernel has no such class
        for entry in Path("/proc/self/task").iterdir():
            thread = int(entry.name)
            if thread != self._thread:
                try:
                    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
                except OSError:
                    pass  # the thread has just ended, or a sandbox forbids it; the work is the same

    def normally(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` in the thread that did not step back and return its result; its own threads are as quick.

        Raises:
            Exception: whatever ``work`` raises.
        """
        return self._aside.submit(work).result()
