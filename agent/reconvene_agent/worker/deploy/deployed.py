"""The deployed file of a release: found, and proved to be the one that was released."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core import atomic
from reconvene_agent.core import release as releases
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.release import Release


def find(given: Path) -> tuple[Release, Path]:
    """Return the release meant by a path (a release or a models folder) and its ONNX file.

    Raises:
        UsageError: there is no release, or its file is missing or altered.
    """
    folder = releases.folder_of(given)
    release = releases.read(folder)
    onnx = folder / releases.ONNX
    if not onnx.is_file() or atomic.sha256(onnx) != release.onnx_sha256:
        raise UsageError(f"{onnx} is not the file that was deployed: specialize again, or name another release")
    return release, onnx
