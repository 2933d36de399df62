from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core.kernel import files


def test_text_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\ntwo\n")
    assert files.read_text(tmp_path / "file") == "one\ntwo\n"


def test_bytes_that_are_no_text_do_not_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"caf\xe9\n")
    assert files.read_text(tmp_path / "file") == "caf\ufffd\n"


@pytest.mark.parametrize("name", ["missing", "folder", "nul\0byte", "long" * 2000, "file/below"])
def test_what_cannot_be_read_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    assert files.read_text(tmp_path / name) is None


def test_a_sensor_that_answers_try_again_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "temp")
    writer = os.open(tmp_path / "temp", os.O_RDWR)  # an open pipe without data: each read gives EAGAIN
    try:
        assert files.read_text(tmp_path / "temp") is None
        assert files.read_number(tmp_path / "temp") is None
    finally:
        os.close(writer)


def test_a_pipe_nobody_writes_to_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert files.read_text(tmp_path / "pipe") == ""


def test_no_permission_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("7")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert files.read_number(tmp_path / "file") is None


def test_descriptors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        files.read_text(tmp_path / "folder")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_without_end_is_cut() -> None:
    text = files.read_text(Path("/dev/zero"))
    assert text is not None
    assert len(text) < 2 << 20


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"Pi\0", "Pi"), (b"Pi\n", "Pi"), (b" Pi \n\n", "Pi"), (b"", None), (b"\0", None), (b"\n", None), (b"a\0b", "a")],
)
def test_one_line(tmp_path: Path, content: bytes, line: str | None) -> None:
    (tmp_path / "file").write_bytes(content)
    assert files.read_line(tmp_path / "file") == line


@pytest.mark.parametrize(
    ("text", "base", "number"),
    [
        ("42", 10, 42),
        ("-256000", 10, -256000),
        ("50005", 16, 0x50005),
        ("0x50005", 16, 0x50005),
        ("max", 10, None),
        ("", 10, None),
    ],
)
def test_numbers(text: str, base: int, number: int | None) -> None:
    assert files.parse_number(text, base) == number


@pytest.mark.parametrize("text", [str(2**64), "9" * 5000, "-" + "9" * 30])
def test_numbers_beyond_64_bits_are_none(text: str) -> None:
    assert files.parse_number(text) is None


@settings(derandomize=True, deadline=None, database=None)
@given(st.text(), st.sampled_from([10, 16]))
def test_no_text_breaks_the_numbers(text: str, base: int) -> None:
    number = files.parse_number(text, base)
    assert number is None or abs(number) < 2**64


def test_children_are_sorted_and_chosen_by_prefix(tmp_path: Path) -> None:
    for name in ("hwmon1", "hwmon0", "other"):
        (tmp_path / name).mkdir()
    assert [child.name for child in files.children(tmp_path, "hwmon")] == ["hwmon0", "hwmon1"]


@pytest.mark.parametrize("make", [Path.touch, Path.absolute])
def test_no_folder_has_no_children(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "folder")
    assert files.children(tmp_path / "folder", "") == []
