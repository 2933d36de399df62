"""The one way in: local data of any kind become a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import arrays, folders
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.folders import Report


def load(path: Path, spec: ModelSpec, labels: Sequence[str], validation: float, report: Report) -> Dataset:
    """Read an image folder, or an ``.npz`` file of images, windows or rows of features.

    Raises:
        AgentError: NO_DATA when there is nothing at ``path``, BAD_DATA when it does not fit the bundle.
    """
    if path.is_dir():
        return folders.load(path, spec, labels, validation, report)
    if path.suffix == ".npz" and path.is_file():
        return arrays.load(path, spec, labels, validation)
    if path.exists():
        raise AgentError(f"{path} is neither a folder of images nor an .npz file", ErrorCode.BAD_DATA)
    raise AgentError(f"{path} does not exist: name a folder of images or an .npz file", ErrorCode.NO_DATA)
