"""Folders that stand for a board's ``/``: planted file by file, or the boards kept below ``tests/fixtures/boards``.

The kept files are what such boards show, shortened. ``proc/sys/kernel/arch`` is there on all of them, also where the
board's own kernel is too old to have it: a copied tree has no other way to tell its architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Plant = Callable[[Mapping[str, "str | bytes"]], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Return a function that writes files, named relative to a root, and returns that root."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write


@pytest.fixture(scope="session")
def boards() -> Path:
    """Return the folder that holds one root per board."""
    return Path(__file__).resolve().parents[1] / "fixtures" / "boards"
