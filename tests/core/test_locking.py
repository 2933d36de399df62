from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconvene_agent.core import locking
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.locking import locked

HOLDER = """
import sys
from pathlib import Path
from reconvene_agent.core.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Return a process that holds the folder until it is told to let go, or dies."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_holds_it_for_long_is_not_waited_for(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PATIENCE_S", 0.05)
    with pytest.raises(AgentError, match="somebody else is changing") as caught, locked(tmp_path):
        pass
    assert caught.value.code is ErrorCode.BUSY
    holder.communicate("go\n")
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_the_lock_of_who_is_killed_is_gone(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()
    with locked(tmp_path):
        pass


def test_where_there_is_no_folder_there_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none"):
        pass
