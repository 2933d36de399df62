from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.work import Work
from support.disks import fill, tiny_disk


def test_what_is_kept_is_found_again_as_what_it_was(tmp_path: Path) -> None:
    Work(tmp_path / "work", "a").remember("latency", Latency(1.0, 2.0, 3))
    assert Work(tmp_path / "work", "a").recall("latency", Latency) == Latency(1.0, 2.0, 3)


def test_there_is_nothing_of_another_run_or_name_or_kind(tmp_path: Path) -> None:
    Work(tmp_path, "a").remember("latency", Latency(1.0, 2.0, 3))
    assert Work(tmp_path, "b").recall("latency", Latency) is None
    assert Work(tmp_path, "a").recall("plan", Latency) is None
    assert Work(tmp_path, "a").recall("latency", int) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"fingerprint":"a"}', b'{"value":1}', b"[" * 100_000])
def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    assert Work(tmp_path, "a").recall("plan", int) is None


def test_what_an_attempt_that_was_killed_left_half_written_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    (tmp_path / f".checkpoint.safetensors.{process.pid}.tmp").write_bytes(b"half")
    Work(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_what_was_kept(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        work = Work(disk, "a")
        work.remember("plan", 1)
        fill(disk)
        with pytest.raises(AgentError) as caught:
            work.remember("plan", "x" * 10_000)
        assert caught.value.code is ErrorCode.NO_DISK
        assert work.recall("plan", int) == 1
