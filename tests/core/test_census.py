from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconvene_agent.core.census import Census, take


def counted(path: Path) -> tuple[int, int]:
    found = take(path)
    assert found is not None
    return found.files, found.bytes


def test_files_are_counted_as_deep_as_data_lie(tmp_path: Path) -> None:
    for name, size in (("a.csv", 1), ("cat/1.png", 10), ("train/cat/1.png", 100), ("train/cat/deep/1.png", 1000)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * size)
    assert counted(tmp_path) == (3, 111)


def test_what_is_hidden_no_file_or_a_link_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").write_bytes(b"1234")
    (tmp_path / "cat/.2.png").write_bytes(b"1234")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "cat/link.png").symlink_to(tmp_path / "cat/1.png")
    os.mkfifo(tmp_path / "cat/pipe")
    assert counted(tmp_path) == (1, 4)


def test_one_file_is_counted_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"12345")
    assert counted(tmp_path / "data.csv") == (1, 5)


def test_nothing_there_and_no_time_are_no_census(tmp_path: Path) -> None:
    assert take(tmp_path / "nowhere") is None
    (tmp_path / "cat").mkdir()
    assert take(tmp_path, seconds=-1.0) is None


def test_data_of_another_place_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    a, again, b = (take(tmp_path / name) for name in ("a", "a", "b"))
    assert a == again != b


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [((100, 1000), (110, 1000), 0.1), ((1, 1000), (1, 1500), 0.5), ((100, 1000), (90, 900), 0.0), ((0, 0), (3, 9), 9.0)],
)
def test_the_share_of_new_data_is_that_of_files_or_bytes(before: tuple[int, int], after: tuple[int, int], share: float) -> None:
    assert Census(*after, "x").new_since(Census(*before, "x")) == pytest.approx(share)
