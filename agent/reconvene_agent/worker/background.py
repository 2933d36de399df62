"""Long computations at low priority, so that the board's own applications stay quick.

Only the computation steps back, not the process: what is measured afterwards must take as long as it would elsewhere on
the board, and a process without privileges could never raise its priority again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NICENESS = 10

Result = TypeVar("Result")


def in_background(work: Callable[[], Result]) -> Result:
    """Run ``work`` in a thread of low priority and return its result; the threads that it starts inherit the priority.

    Raises:
        Exception: whatever ``work`` raises.
    """
    with ThreadPoolExecutor(1, "background", initializer=_step_back) as pool:
        return pool.submit(work).result()


def _step_back() -> None:
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
    except OSError:
        pass  # a sandbox may forbid it; the work is the same
