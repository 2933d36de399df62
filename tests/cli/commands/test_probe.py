"""``probe``: this board, and copies of others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.commandline import Cli, Ended, command, configured

BOARDS = Path(__file__).parents[2] / "fixtures/boards"
KEYS = [
    "model", "compatible", "architecture", "cpu", "cores", "memory", "storage", "temperature_c", "power",
    "clock_synchronized", "os", "kernel", "profile",
]  # fmt: skip
POWER = {"under_voltage", "throttled", "under_voltage_since_boot", "throttled_since_boot"}
LINES = ["board", "processor", "memory", "storage", "temperature", "power", "clock", "system", "profile"]


def lines(told: Ended) -> dict[str, str]:
    """Return what was told to people, by its name."""
    assert (told.code, told.err) == (0, "")
    return {line[:14].strip(): line[14:] for line in told.out.splitlines()}


def test_the_document_of_this_board(tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"state_dir": str(tmp_path)})
    ended = command("probe", "--config", config, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert list(document) == KEYS
    assert document["architecture"] == subprocess.check_output(["uname", "-m"], text=True).strip()
    assert 0 < document["memory"]["available_mb"] <= document["memory"]["total_mb"]
    assert set(document["memory"]) == {"total_mb", "available_mb", "swap_total_mb", "limited_by"}
    assert set(document["storage"]) == {"path", "total_mb", "free_mb"}
    assert document["storage"]["path"] == str(tmp_path)
    assert document["cores"] >= 1


@pytest.mark.parametrize("board", sorted(path.name for path in BOARDS.iterdir()))
def test_a_copy_of_another_board_gets_its_profile(board: str, cli: Cli) -> None:
    document = cli("probe", "--root", BOARDS / board, "--json").document
    assert list(document) == KEYS
    assert document["profile"] == board
    assert document["power"] is None or set(document["power"]) == POWER


def test_a_board_is_told_to_people_line_by_line(cli: Cli) -> None:
    told = lines(cli("probe", "--root", BOARDS / "raspberry-pi-zero-2-w"))
    assert list(told) == LINES
    assert told["board"] == "Raspberry Pi Zero 2 W Rev 1.0"
    assert told["processor"] == "Cortex-A53, aarch64, 4 cores usable"
    assert told["memory"] == "234 of 417 MiB available"
    assert told["temperature"] == "49.4 °C"
    assert told["clock"] == "synchronised"
    assert told["profile"] == "raspberry-pi-zero-2-w (Raspberry Pi Zero 2 W)"


@pytest.mark.parametrize(
    ("board", "power"),
    [
        ("raspberry-pi-zero-2-w", "good"),
        ("raspberry-pi-3b-plus", "throttled"),
        ("raspberry-pi-4b", "short of voltage and throttled"),
        ("raspberry-pi-5", "good, but whether it is throttled is not told"),
        ("jetson-orin-nano", "good now, but there was under-voltage or throttling since boot"),
        ("jetson-nano", "not told by this board"),
    ],
)
def test_power_is_told_in_words(board: str, power: str, cli: Cli) -> None:
    assert lines(cli("probe", "--root", BOARDS / board))["power"] == power


def test_a_limit_of_memory_is_named(cli: Cli) -> None:
    told = lines(cli("probe", "--root", BOARDS / "raspberry-pi-4b"))
    assert told["memory"].startswith("874 of 1024 MiB available, limited by /sys/fs/cgroup/")


def test_a_board_that_tells_nothing_is_no_error(cli: Cli, tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"profile": "generic-aarch64"})
    words = ("probe", "--root", tmp_path / "nothing", "--config", config)
    document = cli(*words, "--json").document
    assert (document["model"], document["profile"], document["temperature_c"]) == ("unknown", "generic-aarch64", None)
    told = lines(cli(*words))
    assert (told["temperature"], told["power"], told["clock"]) == (*["not told by this board"] * 2, "not synchronised")


def test_a_profile_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    ended = cli("probe", "--config", configured(tmp_path, agent={"profile": "abacus"}), "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert ended.complaint.startswith("no profile is named 'abacus'; there are: ")
