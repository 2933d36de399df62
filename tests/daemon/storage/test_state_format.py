from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.daemon.storage import state_format


@pytest.mark.parametrize("before", [None, b"0\n", b"", b"none\n"])
def test_what_bears_no_newer_mark_is_marked_as_ours(tmp_path: Path, before: bytes | None) -> None:
    if before is not None:
        (tmp_path / "format").write_bytes(before)
    state_format.claim(tmp_path)
    assert (tmp_path / "format").read_bytes() == b"1\n"
    state_format.claim(tmp_path)


def test_the_state_of_a_newer_agent_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "format").write_bytes(b"2\n")
    with pytest.raises(AgentError, match=r"newer reconvene-agent \(format 2, this one knows 1\)") as refused:
        state_format.claim(tmp_path)
    assert refused.value.code is ErrorCode.UNSUPPORTED
    assert (tmp_path / "format").read_bytes() == b"2\n"


def test_a_folder_that_cannot_be_marked_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "format").mkdir()
    state_format.claim(tmp_path)
