from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.daemon.probe.cgroup import MemoryLimit, cpu_quota, memory_limits

UNLIMITED = "9223372036854771712\n"


def test_without_groups_there_are_no_limits(plant: Callable[..., Path]) -> None:
    root = plant({})
    assert memory_limits(root) == []
    assert cpu_quota(root) is None


def test_version_2_own_group_and_ancestors(plant: Callable[..., Path]) -> None:
    root = plant(
        {
            "proc/self/cgroup": "0::/a.slice/b.service\n",
            "sys/fs/cgroup/a.slice/b.service/memory.max": "1000\n",
            "sys/fs/cgroup/a.slice/b.service/memory.high": "800\n",
            "sys/fs/cgroup/a.slice/b.service/memory.current": "300\n",
            "sys/fs/cgroup/a.slice/b.service/memory.stat": "anon 200\ninactive_file 100\nactive_file 5\n",
            "sys/fs/cgroup/a.slice/memory.max": "5000\n",
            "sys/fs/cgroup/a.slice/memory.high": "max\n",
            "sys/fs/cgroup/a.slice/memory.current": "4900\n",
        }
    )
    assert memory_limits(root) == [
        MemoryLimit(1000, 200, "/sys/fs/cgroup/a.slice/b.service/memory.max"),
        MemoryLimit(800, 200, "/sys/fs/cgroup/a.slice/b.service/memory.high"),
        MemoryLimit(5000, 4900, "/sys/fs/cgroup/a.slice/memory.max"),
    ]


def test_version_1_counts_the_cache_of_the_whole_hierarchy(plant: Callable[..., Path]) -> None:
    root = plant(
        {
            "proc/self/cgroup": "4:memory:/jobs/one\n1:name=systemd:/\n",
            "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": "900\n",
            "sys/fs/cgroup/memory/jobs/one/memory.stat": "inactive_file 1\ntotal_inactive_file 400\n",
            "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": "2000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
        }
    )
    own, parent, mount = memory_limits(root)
    assert own == MemoryLimit(1000, 500, "/sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes")
    assert parent == MemoryLimit(2000, 0, "/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes")
    assert mount.limit == int(UNLIMITED)


def test_hybrid_mounts_are_all_read(plant: Callable[..., Path]) -> None:
    root = plant(
        {
            "proc/self/cgroup": "9:memory:/m\n0::/u\n",
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "70\n",
            "sys/fs/cgroup/unified/u/memory.max": "50\n",
        }
    )
    assert {limit.file for limit in memory_limits(root)} == {
        "/sys/fs/cgroup/memory/m/memory.limit_in_bytes",
        "/sys/fs/cgroup/unified/u/memory.max",
    }


@pytest.mark.parametrize("path", ["/docker/0123", "/../../other", "/gone (deleted)", "/" + "deep/" * 500])
@pytest.mark.parametrize(
    ("line", "file"),
    [("0::{}", "sys/fs/cgroup/memory.max"), ("7:memory:{}", "sys/fs/cgroup/memory/memory.limit_in_bytes")],
)
def test_in_a_container_the_mount_itself_is_the_group(plant: Callable[..., Path], line: str, file: str, path: str) -> None:
    root = plant({"proc/self/cgroup": line.format(path) + "\n", file: "123456\n"})
    assert memory_limits(root) == [MemoryLimit(123456, 0, f"/{file}")]


def test_a_path_never_leads_out_of_the_mount(plant: Callable[..., Path]) -> None:
    files = {"sys/fs/cgroup/memory.max": "9\n", "sys/fs/outside/memory.max": "5\n"}
    root = plant({"proc/self/cgroup": "0::/../outside\n", **files})
    assert [limit.limit for limit in memory_limits(root)] == [9]


def test_a_path_with_colons_is_one_path(plant: Callable[..., Path]) -> None:
    root = plant({"proc/self/cgroup": "0::/a:b:c\n", "sys/fs/cgroup/a:b:c/memory.max": "9\n"})
    assert [limit.limit for limit in memory_limits(root)] == [9]


@pytest.mark.parametrize("content", ["", "max\n", "-1\n", "many\n", "9" * 40, b"\xff\xfe\0"])
def test_limits_that_are_no_number_are_none(plant: Callable[..., Path], content: str | bytes) -> None:
    root = plant({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": content})
    assert memory_limits(root) == []


@pytest.mark.parametrize(("used", "headroom"), [(0, 100), (40, 60), (100, 0), (500, 0)])
def test_headroom_is_never_negative(used: int, headroom: int) -> None:
    assert MemoryLimit(100, used, "file").headroom == headroom


@pytest.mark.parametrize(
    ("content", "quota"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("50000 100000", 0.5), ("100000\n", None), ("1 0\n", None), ("x y", None)],
)
def test_version_2_quota(plant: Callable[..., Path], content: str, quota: float | None) -> None:
    assert cpu_quota(plant({"proc/self/cgroup": "0::/s\n", "sys/fs/cgroup/s/cpu.max": content})) == quota


@pytest.mark.parametrize(("given_us", "quota"), [("250000\n", 2.5), ("-1\n", None), ("", None), ("0\n", None)])
@pytest.mark.parametrize(("controllers", "mount"), [("cpu,cpuacct", "cpu,cpuacct"), ("cpu,cpuacct", "cpu"), ("cpu", "cpu")])
def test_version_1_quota(plant: Callable[..., Path], controllers: str, mount: str, given_us: str, quota: float | None) -> None:
    root = plant(
        {
            "proc/self/cgroup": f"5:{controllers}:/s\n",
            f"sys/fs/cgroup/{mount}/s/cpu.cfs_quota_us": given_us,
            f"sys/fs/cgroup/{mount}/s/cpu.cfs_period_us": "100000\n",
        }
    )
    assert cpu_quota(root) == quota


def test_the_tightest_quota_counts(plant: Callable[..., Path]) -> None:
    root = plant(
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/a/cpu.max": "120000 100000\n",
        }
    )
    assert cpu_quota(root) == pytest.approx(1.2)


NAMES = [
    "proc/self/cgroup",
    *(f"sys/fs/cgroup/{name}" for name in ("memory.max", "memory.high", "memory.current", "memory.stat", "cpu.max")),
    *(f"sys/fs/cgroup/memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")),
    *(f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us" for name in ("quota", "period")),
]
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
    st.tuples(st.integers(-5, 2**65), st.integers(-5, 2**65)).map(lambda pair: f"{pair[0]} {pair[1]}".encode()),
    st.just(b"0::/\n3:memory:/\n4:cpu:/\n"),
)


@settings(derandomize=True, deadline=None, database=None)
@given(files=st.dictionaries(st.sampled_from(NAMES), CONTENT))
def test_no_content_breaks_it(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("root")
    _write(root, files)
    assert all(limit.limit >= 0 and 0 <= limit.headroom <= limit.limit for limit in memory_limits(root))
    quota = cpu_quota(root)
    assert quota is None or quota > 0


def _write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
