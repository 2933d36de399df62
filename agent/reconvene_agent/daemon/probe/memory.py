"""Memory of the board and of the control group that this process lives in, whichever is less."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.device import Memory
from reconvene_agent.core.kernel.files import parse_number, read_text
from reconvene_agent.daemon.probe.cgroup import memory_limits

MIB = 1 << 20


def read_memory(root: Path) -> Memory:
    """Return memory in MiB under the tightest limit that applies; zeros when the kernel tells nothing.

    ``limited_by`` names the control group's file with the least room left, if any limit is below the board's memory.
    """
    info = meminfo(root)
    total = info.get("MemTotal", 0)
    free = sum(info.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))
    available = min(total, info.get("MemAvailable", free))
    limits = [limit for limit in memory_limits(root) if limit.limit < total]
    binding = min(limits, key=lambda limit: (limit.headroom, limit.limit), default=None)
    if binding is not None:
        total = min(limit.limit for limit in limits)
        available = min(available, binding.headroom)
    return Memory(
        total_mb=mebibytes(total),
        available_mb=mebibytes(available),
        swap_total_mb=mebibytes(info.get("SwapTotal", 0)),
        limited_by=None if binding is None else binding.file,
    )


def mebibytes(size: int) -> float:
    """Return bytes in MiB to a tenth, which is as much as anybody wants to read."""
    return round(size / MIB, 1)


def swap_used_mb(root: Path) -> float | None:
    """Return the swap in use in MiB, compressed memory included; None when the kernel does not tell."""
    info = meminfo(root)
    if "SwapTotal" not in info or "SwapFree" not in info:
        return None
    return max(0, info["SwapTotal"] - info["SwapFree"]) / MIB


def meminfo(root: Path) -> dict[str, int]:
    """Return the sizes in ``/proc/meminfo`` in bytes; what cannot be read is left out."""
    sizes: dict[str, int] = {}
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            size = parse_number(words[0])
            if size is not None and size >= 0:
                sizes[name.strip()] = size * 1024
    return sizes
