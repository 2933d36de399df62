"""The disk with the agent's state: room for bytes and for files, and whether it can be written at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.daemon.board.vitals import SCARCE_MB, SCARCE_SHARE
from reconvene_agent.daemon.worker.launch import MIN_FREE_MB

GOOD = ok("disk.good", "{free} of {total} MiB are free at {path}")
LOW = warning(
    "disk.low", "only {free} of {total} MiB are free at {path}", "free some: sudo du -xh --max-depth=2 / | sort -h | tail"
)
FULL = problem(
    "disk.full",
    "{free} of {total} MiB are free at {path}: no job is started with less than {least} MiB",
    "free some: sudo du -xh --max-depth=2 / | sort -h | tail; old journals: sudo journalctl --vacuum-size=50M",
)
READ_ONLY = problem(
    "disk.read-only",
    "the file system at {path} is mounted read-only",
    "sudo dmesg | tail says whether the disk has failed; if it has not: sudo mount -o remount,rw {mount}",
)
FILES = problem(
    "disk.no-inodes",
    "the file system at {path} has room for {files} more files only, whatever their size",
    "remove many small files: sudo du -x --inodes --max-depth=2 / | sort -n | tail",
)
UNREACHABLE = skipped("disk.unreachable", "{path} cannot be looked at: {why}", "sudo reconvene-agent doctor")

MIB = 1 << 20
FEWEST_FILES = 1000


def check(case: Case) -> Iterator[Finding]:
    assert case.config is not None
    path = case.config.state_dir
    try:
        told = os.statvfs(existing(path))
    except OSError as error:
        yield UNREACHABLE(path=path, why=error.strerror)
        return
    free, total = told.f_bavail * told.f_frsize / MIB, told.f_blocks * told.f_frsize / MIB
    room = {"path": path, "free": f"{free:.0f}", "total": f"{total:.0f}"}
    trouble = []
    if told.f_flag & os.ST_RDONLY:
        trouble.append(READ_ONLY(path=path, mount=_mount(existing(path))))
    if free < MIN_FREE_MB:
        trouble.append(FULL(**room, least=f"{MIN_FREE_MB:.0f}"))
    elif free < SCARCE_MB and free < SCARCE_SHARE * total:
        trouble.append(LOW(**room))
    if told.f_files and told.f_favail < FEWEST_FILES:  # some file systems have no limit, and tell zeros
        trouble.append(FILES(path=path, files=told.f_favail))
    yield from trouble or [GOOD(**room)]


def existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there.

    Raises:
        OSError: it cannot be looked at.
    """
    for folder in (path, *path.parents):
        try:
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return folder
    return Path("/")


def _mount(path: Path) -> Path:
    """Return where the file system is mounted that holds ``path``."""
    path = path.resolve()
    return next((folder for folder in (path, *path.parents) if folder.is_mount()), Path("/"))
