"""Releases on disk: folders with a manifest, ``current`` pointing at one; and how to find the one that serves.

A release folder is complete from the moment it has its name: it was written aside, synced and renamed.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from msgspec import Struct

from reconvene_agent.core import atomic
from reconvene_agent.core.budget import Budget
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.options import MethodOptions

ONNX = "model.onnx"
MANIFEST = "release.json"
CURRENT = "current"
KEPT_BEHIND_CURRENT = 2


class Latency(Struct, frozen=True):
    """Milliseconds of one inference at batch 1: median and 95th percentile of ``runs`` inferences."""

    p50: float
    p95: float
    runs: int = 0


class Release(Struct, frozen=True):
    """The manifest of a deployed model.

    Attributes:
        version: the release's name, and its folder's.
        bundle: SHA-256 of the manifest of the bundle that it came from.
        sparsity: share of weights that the criterion dropped.
        widths: output channels of every convolution and linear layer.
        params: stored parameters of the torch model; ``nonzero`` leaves masked zeros out.
        macs: multiply-accumulates of one inference.
        accuracy: on held-out local data, 0 to 1; None when the model was not trained.
        mean, std: per input channel or feature, of pixels scaled to 0..1; what an application must normalise with.
        onnx_sha256, onnx_bytes: the deployed file.
        created: UTC, RFC 3339.
        memory_mb: what one inference takes, weights and live activations; 0 where that was not noted.
        budget: the limits that it was made for.
    """

    version: str
    created: str
    agent_version: str
    bundle: str
    model: ModelSpec
    labels: tuple[str, ...]
    sparsity: float
    method: MethodOptions
    widths: dict[str, int]
    params: int
    nonzero: int
    macs: int
    accuracy: float | None
    latency_ms: Latency
    mean: tuple[float, ...]
    std: tuple[float, ...]
    onnx_sha256: str
    onnx_bytes: int
    memory_mb: float = 0.0
    budget: Budget = Budget()


_VERSION = re.compile(r"r\d{4,9}-[0-9a-f]{8}")

_decoder = msgspec.json.Decoder(Release)


def folder_of(given: Path) -> Path:
    """Return the release folder meant by a path: a release itself, or a models folder whose ``current`` points at one.

    Raises:
        UsageError: there is no release.
    """
    for folder in (given, given / CURRENT):
        if (folder / MANIFEST).is_file():
            return folder.resolve()
    raise UsageError(f"{given} holds no deployed model: neither {MANIFEST} nor {CURRENT}/{MANIFEST} is there")


def read(folder: Path) -> Release:
    """Read a release's manifest.

    Raises:
        UsageError: it is missing or damaged.
    """
    try:
        return from_json((folder / MANIFEST).read_bytes(), _decoder.decode)
    except (msgspec.DecodeError, OSError) as error:
        raise UsageError(f"{folder / MANIFEST} cannot be read: {error}") from error


def current(models: Path) -> Release | None:
    """Return the current release below a models folder, or None when there is none that can be read."""
    try:
        return read(folder_of(models))
    except UsageError:
        return None


def versions(models: Path) -> list[str]:
    """Return the releases below a models folder, oldest first."""
    if not models.is_dir():
        return []
    found = [path.name for path in models.iterdir() if not path.is_symlink() and (path / MANIFEST).is_file()]
    return sorted((name for name in found if _VERSION.fullmatch(name)), key=_number)


def _number(version: str) -> int:
    return int(version[1 : version.index("-")])


def version_for(models: Path, onnx_sha256: str) -> str:
    """Return the name for a deployed file: the one it already has, else the next number and the file's first digits.

    Numbers rather than dates order the releases: many boards boot without a clock.
    """
    suffix = onnx_sha256[:8]
    present = versions(models)
    for version in present:
        if version.endswith(f"-{suffix}"):
            return version
    last = _number(present[-1]) if present else 0
    return f"r{last + 1:04d}-{suffix}"


def publish(aside: Path, models: Path, version: str) -> Path:
    """Give a finished release folder its name below ``models`` and point ``current`` at it.

    Doing it again is harmless, so a run that was cut off between the two steps can simply repeat them.
    """
    final = models / version
    if final.exists():
        atomic.remove_tree(aside)
    else:
        with atomic.full_disk_is_no_disk(f"storing the release in {models}"):
            atomic.sync_tree(aside)
            aside.rename(final)
            atomic.sync_folder(models)
    atomic.point_link(models / CURRENT, version)
    return final


def sweep(models: Path) -> list[str]:
    """Remove all releases but the current one, newer ones and the two before it; return the removed versions."""
    serving = (models / CURRENT).resolve().name
    present = versions(models)
    older = present[: present.index(serving)] if serving in present else []
    removed = older[:-KEPT_BEHIND_CURRENT]
    for version in removed:
        atomic.remove_tree(models / version)
    return removed
