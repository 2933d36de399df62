from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.daemon.storage import pause_order


def test_who_has_paused_is_kept_until_somebody_resumes(tmp_path: Path) -> None:
    path = tmp_path / "paused.json"
    assert pause_order.kept(path) == ""
    for by in ("pause/1", "command line"):
        pause_order.keep(path, by)
        assert pause_order.kept(path) == by
    for _ in range(2):
        pause_order.keep(path, "")
        assert pause_order.kept(path) == ""
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"by":""}', b"{" * 100_000])
def test_a_file_that_cannot_be_read_keeps_the_board_paused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "paused.json").write_bytes(content)
    assert pause_order.kept(tmp_path / "paused.json") == "somebody"
