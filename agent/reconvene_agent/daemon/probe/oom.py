"""Whether the kernel has killed something for want of memory: its counters, of this machine and of our control group."""

from __future__ import annotations

from pathlib import Path


def kills(root: Path = Path("/")) -> int:
    """Return the number of out-of-memory kills counted so far; it only ever grows, and is 0 where nothing counts."""
    files = ("proc/vmstat", "sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control")
    return sum(_counter(root / file, "oom_kill") for file in files)


def _counter(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError, UnicodeDecodeError):
        pass
    return 0
