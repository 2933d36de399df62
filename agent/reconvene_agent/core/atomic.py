"""Writes that a power cut cannot tear: write aside, sync, rename, sync the folder.

Owns how files reach the disk; what is in them belongs to the callers.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reconvene_agent.core.errors import AgentError, ErrorCode

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_is_no_disk(what: str) -> Iterator[None]:
    """Turn 'no space left' inside the block into NO_DISK, naming ``what`` was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise AgentError(f"no space left on the disk while {what}: free some and try again", ErrorCode.NO_DISK) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_with(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a neighbour of ``path``, then put it in place at once; nothing half-written is left behind.

    Raises:
        AgentError: NO_DISK when the disk is full; ``path`` then still holds what it held before.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk_is_no_disk(f"writing {path}"):
            fill(aside)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
            sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the files and folders that writers that were killed have left half-written in ``folder``."""
    for aside in folder.glob(".*.tmp"):
        owner = aside.name.split(".")[-2]
        if not owner.isdecimal() or Path("/proc", owner).exists():
            continue
        if aside.is_dir() and not aside.is_symlink():
            remove_tree(aside)
        else:
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, wholly or not at all."""

    def fill(aside: Path) -> None:
        aside.write_bytes(content)

    write_with(path, fill)


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below ``folder``, before it is renamed into place."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def point_link(link: Path, target: str) -> None:
    """Make the symbolic link ``link`` point at ``target`` in one step; readers see the old or the new, never none."""
    aside = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    try:
        with full_disk_is_no_disk(f"switching {link}"):
            aside.symlink_to(target)
            aside.replace(link)
            sync_folder(link.parent)
    finally:
        aside.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, read piece by piece into one buffer."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 17))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def remove_tree(folder: Path) -> None:
    """Remove a folder and all that is in it; nothing happens if it is not there."""
    # Imported here because it brings three compression libraries along, which the daemon hardly ever needs.
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
