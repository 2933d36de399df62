from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.daemon.probe.sample import system_sample

ALWAYS = {"cpu_percent", "agent_rss_mb", "storage_free_mb"}
ALL = ALWAYS | {"memory_available_mb", "memory_used_mb", "swap_used_mb", "temperature_c", "load_1min"}


def test_a_board_that_tells_everything(boards: Path, tmp_path: Path) -> None:
    sample = system_sample(tmp_path, boards / "raspberry-pi-4b")
    assert sample.keys() == ALL
    assert sample["memory_available_mb"] == 874.0
    assert sample["memory_used_mb"] == 150.0
    assert sample["swap_used_mb"] == 0.0
    assert sample["temperature_c"] == 55.02
    assert sample["load_1min"] == 0.08
    assert 0.0 <= sample["cpu_percent"] <= 100.0
    assert sample["agent_rss_mb"] > 1.0


def test_what_a_board_does_not_tell_is_left_out(plant: Callable[..., Path], tmp_path: Path) -> None:
    assert system_sample(tmp_path, plant({})).keys() == ALWAYS


def test_this_machine(tmp_path: Path) -> None:
    sample = system_sample(tmp_path)
    assert sample.keys() >= ALWAYS
    assert all(isinstance(number, float) for number in sample.values())


def test_what_psutil_cannot_tell_is_left_out(plant: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "cpu_percent", refuse)
    monkeypatch.setattr(psutil, "Process", refuse)
    assert system_sample(tmp_path, plant({})).keys() == {"storage_free_mb"}


@pytest.mark.parametrize("content", ["", "nan 0 0\n", "inf 0 0\n", "-1 0 0\n", "busy\n", b"\xff"])
def test_a_garbled_load_is_left_out(plant: Callable[..., Path], tmp_path: Path, content: str | bytes) -> None:
    assert "load_1min" not in system_sample(tmp_path, plant({"proc/loadavg": content}))


@settings(derandomize=True, deadline=None, database=None)
@given(content=st.binary(max_size=64))
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "proc").mkdir()
    (root / "proc/loadavg").write_bytes(content)
    (root / "proc/meminfo").write_bytes(content)
    assert all(number == number and abs(number) != float("inf") for number in system_sample(root, root).values())
