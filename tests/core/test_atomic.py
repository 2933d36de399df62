from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import atomic
from reconvene_agent.core.errors import AgentError, ErrorCode
from support.disks import fill, tiny_disk

OLD, NEW = b"old", b"new" * 1000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, OLD)
    atomic.write_bytes(path, NEW)
    assert path.read_bytes() == NEW
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path: Path, number: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def half(aside: Path) -> None:
        aside.write_bytes(NEW[:10])
        raise OSError(number, os.strerror(number))

    with pytest.raises(AgentError, match=r"no space left on the disk while writing .*file") as caught:
        atomic.write_with(path, half)
    assert caught.value.code is ErrorCode.NO_DISK
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_any_other_failure_passes_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def half(aside: Path) -> None:
        aside.write_bytes(NEW[:10])
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        atomic.write_with(path, half)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_after_writing_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="Input/output error"):
        atomic.write_bytes(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_the_content_is_synced_before_it_is_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def note_fsync(descriptor: int) -> None:
        steps.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")  # noqa: PTH112
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    atomic.write_bytes(tmp_path / "file", NEW)
    assert steps == ["sync file", "rename", "sync folder"]


def test_a_really_full_disk(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        path = disk / "file"
        atomic.write_bytes(path, OLD)
        ballast = fill(disk)
        with pytest.raises(AgentError) as caught:
            atomic.write_bytes(path, NEW * 10)
        assert caught.value.code is ErrorCode.NO_DISK
        assert path.read_bytes() == OLD
        assert names(disk) == ["ballast", "file"]
        ballast.unlink()
        atomic.write_bytes(path, NEW)
        assert path.read_bytes() == NEW


def test_a_link_is_switched_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "current"
    atomic.point_link(link, "one")
    atomic.point_link(link, "two")
    assert os.readlink(link) == "two"  # noqa: PTH115 - the text of the link itself
    assert names(tmp_path) == ["current"]


def test_what_a_crash_left_aside_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".current.{os.getpid()}.tmp").symlink_to("old")
    (tmp_path / f".file.{os.getpid()}.tmp").write_bytes(b"half")
    atomic.point_link(tmp_path / "current", "new")
    atomic.write_bytes(tmp_path / "file", NEW)
    assert names(tmp_path) == ["current", "file"]


def test_a_link_that_cannot_be_switched_leaves_nothing_aside(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(OSError, match="directory"):
        atomic.point_link(tmp_path / "current", "new")
    assert names(tmp_path) == ["current"]


def test_every_file_and_folder_of_a_tree_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b/c", "b/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    synced: set[str] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink())))
    atomic.sync_tree(tmp_path)
    assert synced == {str(tmp_path / name) for name in ("", "a", "b", "b/c", "b/d", "b/d/e")}


@given(st.integers(0, 3 << 20))
def test_the_digest_is_that_of_the_whole_file(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = tmp_path_factory.getbasetemp() / "digested"
    content = b"0123456789abcdef" * (size // 16 + 1)
    path.write_bytes(content[:size])
    assert atomic.sha256(path) == hashlib.sha256(content[:size]).hexdigest()


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    left = tmp_path / f".plan.json.{process.pid}.tmp"
    others = [
        tmp_path / name for name in ("plan.json", f".plan.json.{os.getpid()}.tmp", ".tmp", ".a.tmp", f"plan.{process.pid}.tmp")
    ]
    for path in (left, *others):
        path.write_text("x")
    atomic.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    atomic.sweep(tmp_path / "nowhere")
