"""The processors: what they are called and how many of them this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path

from reconvene_agent.core.kernel.files import HOST, parse_number, read_line, read_text
from reconvene_agent.daemon.probe.board import UNKNOWN
from reconvene_agent.daemon.probe.cgroup import cpu_quota

_MOST_CORES = 4096

# Implementer and part number of the main id register; on Arm, Linux gives the number and leaves the name to us.
_ARM_CORES: dict[tuple[int, int], str] = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x4E, 0x003): "NVIDIA Denver 2",
    (0x4E, 0x004): "NVIDIA Carmel",
}


def cpu_name(root: Path) -> str:
    """Return the processor's name, or the names of its kinds of cores; ``unknown`` when it is not told."""
    names: dict[str, None] = {}
    cores: dict[str, None] = {}
    implementer = None
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name" and value:
            names[value] = None
        elif key == "CPU implementer":
            implementer = parse_number(value, 16)
        elif key == "CPU part" and (core := _ARM_CORES.get((implementer or 0, parse_number(value, 16) or 0))):
            cores[core] = None
    return " + ".join(cores or names) or UNKNOWN


def usable_cores(root: Path) -> int:
    """Return how many processors this process may use: those it may run on, or a group's quota of their time if lower.

    A quota is rounded down, since threads beyond it would only wait for each other; at least 1.
    """
    cores = len(os.sched_getaffinity(0)) if root == HOST else _allowed_cores(root)
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _allowed_cores(root: Path) -> int:
    """Count what the affinity lets this process use of the processors that are on, as far as the files tell either."""
    allowed = parse_list((_values(root / "proc/self/status", "Cpus_allowed_list") or [""])[0])
    online = parse_list(read_line(root / "sys/devices/system/cpu/online") or "")
    both = allowed & online if allowed and online else allowed or online
    return len(both) or len(_values(root / "proc/cpuinfo", "processor"))


def _values(path: Path, wanted: str) -> list[str]:
    fields = (line.partition(":") for line in (read_text(path) or "").splitlines())
    return [value.strip() for key, _, value in fields if key.strip() == wanted]


def parse_list(text: str) -> frozenset[int]:
    """Return the processors in a kernel's list such as ``0-3,6``; what is no number is left out."""
    cores: set[int] = set()
    for item in text.split(","):
        first, dash, last = item.partition("-")
        start = parse_number(first)
        end = parse_number(last) if dash else start
        if start is not None and end is not None and 0 <= start <= end < _MOST_CORES:
            cores.update(range(start, end + 1))
    return frozenset(cores)
