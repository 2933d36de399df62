"""The deployed file of a release: found, and proved to be the one that was released."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core import release as releases
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.release import Release


def find(given: Path) -> tuple[Release, Path]:
    """Return the release meant by a path (a release or a models folder) and its ONNX file.

    Raises:
        UsageError: there is no release.
        AgentError: VERIFY_FAILED when its file is missing or altered.
    """
    folder = releases.folder_of(given)
    flaw = releases.flaw(folder)
    if flaw:
        instead = f"'reconvene-agent models rollback --models {folder.parent}' goes back to the one before, or specialize again"
        raise AgentError(f"{flaw}: {instead}", ErrorCode.VERIFY_FAILED)
    return releases.read(folder), folder / releases.ONNX
