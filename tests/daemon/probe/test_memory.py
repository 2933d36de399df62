from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core.device import Memory
from reconvene_agent.daemon.probe.memory import MIB, meminfo, read_memory, swap_used_mb

MEMINFO = """MemTotal:        4096000 kB
MemFree:          512000 kB
MemAvailable:    2048000 kB
Buffers:          102400 kB
Cached:          1024000 kB
SwapTotal:        204800 kB
SwapFree:         102400 kB
HugePages_Total:       0
"""


def test_without_a_limit_it_is_the_boards_memory(plant: Callable[..., Path]) -> None:
    assert read_memory(plant({"proc/meminfo": MEMINFO})) == Memory(4000.0, 2000.0, 200.0, None)


def test_sizes_are_bytes_and_counts_are_left_out(plant: Callable[..., Path]) -> None:
    sizes = meminfo(plant({"proc/meminfo": MEMINFO}))
    assert sizes["MemFree"] == 500 * MIB
    assert "HugePages_Total" not in sizes


def test_without_an_estimate_available_is_what_is_free_or_cached(plant: Callable[..., Path]) -> None:
    old = "".join(line for line in MEMINFO.splitlines(keepends=True) if not line.startswith("MemAvailable"))
    assert read_memory(plant({"proc/meminfo": old})).available_mb == 1600.0


@pytest.mark.parametrize("content", [None, "", "MemTotal\n", "MemTotal: many kB\n", "MemTotal: -4 kB\n", b"\0\xff" * 99])
def test_without_facts_it_is_zero(plant: Callable[..., Path], content: str | bytes | None) -> None:
    root = plant({} if content is None else {"proc/meminfo": content})
    assert read_memory(root) == Memory(0.0, 0.0, 0.0, None)


def test_available_is_never_above_total(plant: Callable[..., Path]) -> None:
    root = plant({"proc/meminfo": "MemTotal: 100 kB\nMemAvailable: 900 kB\n"})
    assert read_memory(root).available_mb == read_memory(root).total_mb


def limited(group: str, limit: int | str, used: int, droppable: int = 0) -> dict[str, str]:
    return {
        f"{group}/memory.max": f"{limit}\n",
        f"{group}/memory.current": f"{used}\n",
        f"{group}/memory.stat": f"inactive_file {droppable}\n",
    }


def test_a_group_limits_total_and_available(plant: Callable[..., Path]) -> None:
    service = "sys/fs/cgroup/system.slice/x.service"
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/system.slice/x.service\n"}
    root = plant({**files, **limited(service, 1024 * MIB, 300 * MIB, droppable=44 * MIB)})
    assert read_memory(root) == Memory(1024.0, 768.0, 200.0, f"/{service}/memory.max")


def test_the_boards_own_shortage_still_counts(plant: Callable[..., Path]) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/x\n", **limited("sys/fs/cgroup/x", 3900 * MIB, 0)}
    memory = read_memory(plant(files))
    assert (memory.total_mb, memory.available_mb) == (3900.0, 2000.0)


def test_a_crowded_ancestor_leaves_less_than_the_own_limit(plant: Callable[..., Path]) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a/b\n"}
    files |= limited("sys/fs/cgroup/a/b", 512 * MIB, 12 * MIB)
    files |= limited("sys/fs/cgroup/a", 1024 * MIB, 1000 * MIB)
    assert read_memory(plant(files)) == Memory(512.0, 24.0, 200.0, "/sys/fs/cgroup/a/memory.max")


def test_a_group_over_its_limit_leaves_nothing(plant: Callable[..., Path]) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a\n", **limited("sys/fs/cgroup/a", 64 * MIB, 80 * MIB)}
    assert read_memory(plant(files)).available_mb == 0.0


@pytest.mark.parametrize("limit", ["max", 4000 * MIB, 9223372036854771712])
def test_a_limit_that_cannot_bind_is_not_named(plant: Callable[..., Path], limit: int | str) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a\n", **limited("sys/fs/cgroup/a", limit, 5 * MIB)}
    assert read_memory(plant(files)) == Memory(4000.0, 2000.0, 200.0, None)


def test_version_1_and_2_side_by_side(plant: Callable[..., Path]) -> None:
    root = plant(
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "3:memory:/m\n0::/u\n",
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes": str(1000 * MIB),
            "sys/fs/cgroup/memory/m/memory.usage_in_bytes": str(100 * MIB),
            "sys/fs/cgroup/memory/m/memory.stat": f"total_inactive_file {50 * MIB}\n",
            "sys/fs/cgroup/unified/u/memory.high": str(2000 * MIB),
        }
    )
    assert read_memory(root) == Memory(1000.0, 950.0, 200.0, "/sys/fs/cgroup/memory/m/memory.limit_in_bytes")


@pytest.mark.parametrize("swap", ["SwapTotal: 0 kB\nSwapFree: 0 kB\n", "SwapTotal: 8192000 kB\nSwapFree: 8192000 kB\n"])
def test_swap_never_counts_as_available(swap: str, plant: Callable[..., Path]) -> None:
    memory = "".join(line for line in MEMINFO.splitlines(keepends=True) if not line.startswith("Swap"))
    found = read_memory(plant({"proc/meminfo": memory + swap}))
    assert (found.total_mb, found.available_mb) == (4000.0, 2000.0)


def test_swap_in_use(plant: Callable[..., Path]) -> None:
    assert swap_used_mb(plant({"proc/meminfo": MEMINFO})) == 100.0


@pytest.mark.parametrize("content", ["", "SwapTotal: 5 kB\n", "SwapFree: 5 kB\n"])
def test_swap_that_is_not_told_is_none(plant: Callable[..., Path], content: str) -> None:
    assert swap_used_mb(plant({"proc/meminfo": content})) is None


def test_swap_in_use_is_never_negative(plant: Callable[..., Path]) -> None:
    assert swap_used_mb(plant({"proc/meminfo": "SwapTotal: 5 kB\nSwapFree: 9 kB\n"})) == 0.0


sizes = st.integers(0, 2**50)
numbers = st.one_of(st.integers(-(2**66), 2**66).map(str), st.sampled_from(["max", "", "nan", "\0"]))


@settings(derandomize=True, deadline=None, database=None)
@given(total=sizes, available=sizes, free=sizes, limits=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=3))
def test_available_is_between_zero_and_total(
    tmp_path_factory: pytest.TempPathFactory, total: int, available: int, free: int, limits: list[tuple[str, str, str, str]]
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {total} kB\nMemAvailable: {available} kB\nMemFree: {free} kB\n")
    (root / "proc/self/cgroup").write_text("0::/" + "/".join("g" for _ in limits) + "\n")
    group = root / "sys/fs/cgroup"
    for limit, high, current, droppable in limits:
        group = group / "g"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(limit)
        (group / "memory.high").write_text(high)
        (group / "memory.current").write_text(current)
        (group / "memory.stat").write_text(f"inactive_file {droppable}\n")
    memory = read_memory(root)
    assert 0.0 <= memory.available_mb <= memory.total_mb <= round(total * 1024 / MIB, 1)
    assert memory.limited_by is not None or memory.total_mb == round(total * 1024 / MIB, 1)


def test_sizes_are_told_to_a_tenth(plant: Callable[..., Path]) -> None:
    root = plant({"proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 100 kB\n"})
    assert read_memory(root) == Memory(1.0, 0.5, 0.1)


@settings(derandomize=True, deadline=None, database=None)
@given(content=st.binary())
def test_no_bytes_break_meminfo(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_bytes(content)
    memory = read_memory(root)
    assert 0.0 <= memory.available_mb <= memory.total_mb
    swap_used_mb(root)
