"""Tensors on disk: safetensors files, written wholly or not at all, the library's errors made the system's own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from reconvene_agent.core import atomic

# safetensors reports a failed write as an error of its own that tells the system's number in its text alone.
_SYSTEM_ERROR = re.compile(r"(?:os error|code:) (\d+)")


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace ``path`` by these tensors.

    Raises:
        AgentError: NO_DISK when the disk is full; ``path`` then still holds what it held before.
    """
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def fill(aside: Path) -> None:
        try:
            save_file(contiguous, aside, metadata)
        except SafetensorError as error:
            found = _SYSTEM_ERROR.search(str(error))
            if found is None:
                raise
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(aside)) from error

    atomic.write_with(path, fill)


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor, to tell whether one model's are another's."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
