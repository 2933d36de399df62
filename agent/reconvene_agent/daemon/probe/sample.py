"""The measurement that is taken again and again: how the board fares right now."""

from __future__ import annotations

import math
from pathlib import Path

import psutil

from reconvene_agent.core.kernel.files import HOST, read_text
from reconvene_agent.daemon.probe.memory import MIB, read_memory, swap_used_mb
from reconvene_agent.daemon.probe.storage import read_storage
from reconvene_agent.daemon.probe.thermal import hottest_c


def system_sample(state_dir: Path, root: Path = HOST) -> dict[str, float]:
    """Return the board's vital numbers by name; what it cannot tell is left out.

    ``cpu_percent`` (0 to 100, since the previous sample taken by the same thread), ``memory_available_mb`` and
    ``memory_used_mb`` (MiB, within the control group's limit), ``swap_used_mb`` (MiB), ``temperature_c`` (degrees
    Celsius), ``storage_free_mb`` (MiB, where ``state_dir`` lies), ``load_1min`` (processes), ``agent_rss_mb`` (MiB).
    The processors' load and the agent's own memory are always this machine's, whatever ``root`` is.
    """
    memory = read_memory(root)
    storage = read_storage(state_dir)
    numbers = {
        "cpu_percent": _cpu_percent(),
        "memory_available_mb": memory.available_mb if memory.total_mb else None,
        "memory_used_mb": memory.total_mb - memory.available_mb if memory.total_mb else None,
        "swap_used_mb": swap_used_mb(root),
        "temperature_c": hottest_c(root),
        "storage_free_mb": storage.free_mb if storage.total_mb else None,
        "load_1min": _load_1min(root),
        "agent_rss_mb": _own_rss_mb(),
    }
    return {name: round(number, 2) for name, number in numbers.items() if number is not None}


def _cpu_percent() -> float | None:
    try:
        return float(psutil.cpu_percent(interval=None))
    except (psutil.Error, OSError, ValueError, NotImplementedError):
        return None


def _own_rss_mb() -> float | None:
    try:
        return float(psutil.Process().memory_info().rss) / MIB
    except (psutil.Error, OSError, ValueError):
        return None


def _load_1min(root: Path) -> float | None:
    words = (read_text(root / "proc/loadavg") or "").split()
    try:
        load = float(words[0])
    except (IndexError, ValueError):
        return None
    return load if math.isfinite(load) and load >= 0 else None
