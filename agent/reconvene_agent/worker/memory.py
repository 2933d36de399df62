"""This process's memory, measured: the peak of a stretch of work, in MiB."""

from __future__ import annotations

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


def peak_mb() -> float:
    """Return the largest resident memory since ``start_peak``, or since the process began."""
    return _field("VmHWM:")


def start_peak() -> float:
    """Forget earlier peaks, so that ``peak_mb`` speaks of what comes; return the resident memory now.

    Where the kernel does not allow it, ``peak_mb`` goes on speaking of the whole process.
    """
    try:
        _RESET.write_text("5")
    except OSError:
        pass
    return resident_mb()
