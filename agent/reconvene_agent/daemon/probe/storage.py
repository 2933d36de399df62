"""Room on the file system that holds the agent's state."""

from __future__ import annotations

import os
from pathlib import Path

from reconvene_agent.core.device import Storage
from reconvene_agent.daemon.probe.memory import mebibytes


def read_storage(state_dir: Path) -> Storage:
    """Return size and free space in MiB of the file system that holds ``state_dir``, or will once the folder is made.

    Free is what an ordinary user may still write; zeros when the file system does not answer.
    """
    for folder in (state_dir, *state_dir.parents):
        try:
            told = os.statvfs(folder)
        except (OSError, ValueError):
            continue
        total, free = told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize
        return Storage(str(state_dir), mebibytes(total), mebibytes(free))
    return Storage(str(state_dir), 0.0, 0.0)
