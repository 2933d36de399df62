"""The control groups that this process lives in: what they leave it of memory and of processor time.

Both generations are read, also side by side: version 2 at its usual mounts, version 1 with a mount per controller. In a
container the group's path is often written as the host sees it; then only the mount's own root is there to be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from reconvene_agent.core.kernel.files import parse_number, read_line, read_number, read_text

_MOUNT = "sys/fs/cgroup"
_V2_MOUNTS = (f"{_MOUNT}/unified", _MOUNT)
_DEEPEST = 64


class MemoryLimit(Struct, frozen=True):
    """A group's limit and what already counts against it, in bytes, and the file that sets it, as the board names it.

    Page cache that can be dropped at once does not count.
    """

    limit: int
    used: int
    file: str

    @property
    def headroom(self) -> int:
        return max(0, self.limit - self.used)


class _MemoryFiles(Struct, frozen=True):
    limits: tuple[str, ...]
    usage: str
    droppable: str


_V2_MEMORY = _MemoryFiles(("memory.max", "memory.high"), "memory.current", "inactive_file")
_V1_MEMORY = _MemoryFiles(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


def memory_limits(root: Path, process: str = "self") -> list[MemoryLimit]:
    """Return the memory limits of a process's groups and all their ancestors; unlimited groups are left out.

    ``process`` is its number; ``self`` is this one.
    """
    limits: list[MemoryLimit] = []
    for files, folders in ((_V2_MEMORY, _v2_groups(root, process)), (_V1_MEMORY, _v1_groups(root, "memory", process))):
        for folder in folders:
            used = max(0, (read_number(folder / files.usage) or 0) - _stat(folder, files.droppable))
            for name in files.limits:
                limit = read_number(folder / name)
                if limit is not None and limit >= 0:
                    limits.append(MemoryLimit(limit, used, f"/{(folder / name).relative_to(root)}"))
    return limits


def own_group(root: Path) -> Path | None:
    """Return the folder of the version 2 group that this process is in, or None where there is none."""
    return next((folder for folder in _v2_groups(root) if (folder / "cgroup.procs").exists()), None)


def cpu_quota(root: Path) -> float | None:
    """Return how many processors' time this process may use, or None when no group limits it."""
    shares: list[float] = []
    for folder in _v2_groups(root):
        quota, _, period = (read_line(folder / "cpu.max") or "").partition(" ")
        shares += _share(parse_number(quota), parse_number(period))
    for folder in _v1_groups(root, "cpu"):
        shares += _share(read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us"))
    return min(shares, default=None)


def _share(quota: int | None, period: int | None) -> list[float]:
    """Return the one share that a quota per period is, or none when it is unlimited or garbled."""
    return [quota / period] if quota and period and min(quota, period) > 0 else []


def _stat(folder: Path, key: str) -> int:
    for line in (read_text(folder / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return max(0, parse_number(value) or 0)
    return 0


def _memberships(root: Path, process: str) -> Iterator[tuple[str, str]]:
    """Yield the controllers, joined by commas and none for version 2, and the path of each group of a process."""
    for line in (read_text(root / "proc" / process / "cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            yield fields[1], fields[2]


def _v2_groups(root: Path, process: str = "self") -> Iterator[Path]:
    for controllers, path in _memberships(root, process):
        if not controllers:
            for mount in _V2_MOUNTS:
                yield from _upwards(root / mount, path)


def _v1_groups(root: Path, controller: str, process: str = "self") -> Iterator[Path]:
    for controllers, path in _memberships(root, process):
        if controller in controllers.split(","):
            for mount in dict.fromkeys((controllers, controller)):
                if "/" not in mount:
                    yield from _upwards(root / _MOUNT / mount, path)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield a group's folder and those of its ancestors up to the mount; whether they are there is left to the reader."""
    names = [name for name in path.split("/") if name]
    if ".." in names or len(names) > _DEEPEST:  # a group outside of our namespace, or no path at all
        names = []
    for depth in range(len(names), -1, -1):
        yield mount.joinpath(*names[:depth])
