from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconvene_agent.core.device import Storage
from reconvene_agent.daemon.probe import storage


def test_size_and_free_space(tmp_path: Path) -> None:
    found = storage.read_storage(tmp_path)
    assert found.path == str(tmp_path)
    assert 0.0 <= found.free_mb <= found.total_mb
    assert found.total_mb > 0.0


def test_a_folder_yet_to_be_made_counts_as_its_parent(tmp_path: Path) -> None:
    found = storage.read_storage(tmp_path / "not" / "yet")
    assert found.path == str(tmp_path / "not" / "yet")
    assert found.total_mb == storage.read_storage(tmp_path).total_mb


def test_units_and_what_only_root_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = os.statvfs_result((4096, 4096, 25600, 12800, 10240, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    assert storage.read_storage(tmp_path) == Storage(str(tmp_path), 100.0, 40.0)


def test_sizes_are_told_to_a_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = os.statvfs_result((4096, 1000, 1000, 900, 800, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    assert storage.read_storage(tmp_path) == Storage(str(tmp_path), 1.0, 0.8)


def test_a_file_system_that_does_not_answer_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    assert storage.read_storage(tmp_path) == Storage(str(tmp_path), 0.0, 0.0)
