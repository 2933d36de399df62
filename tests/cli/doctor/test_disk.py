from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import disk
from reconvene_agent.cli.doctor.account import acting_as
from reconvene_agent.cli.doctor.case import Case
from support.disks import fill, tiny_disk
from support.doctoring import NOBODY, case, codes, told


def on(folder: Path, state: Path) -> Case:
    return case(folder, agent={"state_dir": str(state)})


def test_a_disk_with_room(tmp_path: Path) -> None:
    state = tmp_path / "not/made/yet"
    assert f"MiB are free at {state}" in told(disk.check(on(tmp_path, state)), disk.GOOD).found


def test_a_full_disk(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small", "256k") as state:
        found = told(disk.check(on(tmp_path, state)), disk.FULL)
    assert found.found == f"0 of 0 MiB are free at {state}: no job is started with less than 16 MiB"


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "MIN_FREE_MB", 0.1)
    with tiny_disk(tmp_path / "small", "8m") as state:
        fill(state, leave=300_000)
        assert codes(disk.check(on(tmp_path, state))) == [disk.LOW.code]
        told(disk.check(on(tmp_path, state)), disk.LOW)


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small", "64m") as state:
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        found = told(disk.check(on(tmp_path, state / "deeper")), disk.READ_ONLY)
    assert f"sudo mount -o remount,rw {state}" in found.advice


def test_a_disk_with_no_room_for_files(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small", "64m,nr_inodes=20") as state:
        assert "has room for 19 more files only" in told(disk.check(on(tmp_path, state)), disk.FILES).found


@pytest.mark.usefixtures("as_root")
def test_a_disk_behind_a_closed_door(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    made = on(tmp_path, tmp_path / "closed/state")
    with acting_as(NOBODY):
        found = list(disk.check(made))
    told(found, disk.UNREACHABLE)
