from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.daemon.storage import discovered


def test_what_is_noted_is_found_again_until_nothing_is(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    assert discovered.kept(path) == ()
    for topics in (("a/b", "c"), ("c",)):
        discovered.keep(path, topics)
        assert discovered.kept(path) == topics
    for _ in range(2):
        discovered.keep(path, ())
        assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'["a"'])
def test_a_damaged_note_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    assert discovered.kept(path) == ()
