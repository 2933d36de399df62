from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.daemon.probe import oom


def plant(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_all_counters_count(tmp_path: Path) -> None:
    files = {
        "proc/vmstat": b"pgfault 99\noom_kill 2\n",
        "sys/fs/cgroup/memory.events": b"low 0\noom 5\noom_kill 3\noom_group_kill 7\n",
        "sys/fs/cgroup/memory/memory.oom_control": b"oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    }
    assert oom.kills(plant(tmp_path, files)) == 9


@pytest.mark.parametrize("content", [b"", b"oom_kill\n", b"oom_kill many\n", b"\xff\xfe\n", b"oom 3\n"])
def test_what_does_not_count_is_zero(tmp_path: Path, content: bytes) -> None:
    assert oom.kills(plant(tmp_path, {"proc/vmstat": content})) == 0


def test_nothing_there_is_zero(tmp_path: Path) -> None:
    assert oom.kills(tmp_path) == 0


def test_this_machine_can_be_asked() -> None:
    assert oom.kills() >= 0
