"""This process's memory, measured: the peak of a stretch of work, in MiB."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def _field(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def resident_mb() -> float:
    """Return the resident memory now."""
    return _field("VmRSS:")


def file_backed_mb() -> float:
    """Return the part of the resident memory that only mirrors files, such as a library's code, and can be dropped at once."""
    return _field("RssFile:")


def settled_mb() -> float:
    """Return the resident memory after what was freed has gone back to the system: a base line to measure from."""
    gc.collect()
    trim()
    return resident_mb()


def trim() -> None:
    """Give what was freed back to the system."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; other C libraries do it by themselves
    if malloc_trim is not None:
        malloc_trim(0)


# Of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_USUAL = 1 << 25


@contextmanager
def sparing(larger: int = 1 << 18) -> Iterator[None]:
    """Let every block of ``larger`` bytes or more go back to the system when it is freed, not be kept for the next one.

    Slower where blocks come and go as quickly as in training, so afterwards glibc keeps them as it usually comes to do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's own; other C libraries return memory by themselves
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, larger)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _USUAL)
        mallopt(_M_TRIM_THRESHOLD, 2 * _USUAL)


def peak_mb() -> float:
    """Return the largest resident memory since ``start_peak``, or since the process began."""
    return _field("VmHWM:")


def start_peak() -> None:
    """Forget earlier peaks, so that ``peak_mb`` speaks of what comes.

    Where the kernel does not allow it, ``peak_mb`` goes on speaking of the whole process.
    """
    try:
        _RESET.write_text("5")
    except OSError:
        pass
