"""Releases on disk: folders with a manifest, ``current`` pointing at one; how to find one, and whether it is whole.

A release folder is complete from the moment it has its name: it was written aside, synced and renamed (``core.shelf``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from reconvene_agent.core import atomic
from reconvene_agent.core.budget import Budget
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.census import Census
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.options import MethodOptions

ONNX = "model.onnx"
MANIFEST = "release.json"
CURRENT = "current"


Precision = Literal["float32", "int8"]


class Latency(Struct, frozen=True):
    """Milliseconds of one inference at batch 1: median and 95th percentile of ``runs`` inferences.

    ``spread`` is the distance of their quartiles as a share of the median.
    """

    p50: float
    p95: float
    runs: int = 0
    spread: float = 0.0


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
        precision: of the deployed file's weights and activations.
        refused: why it did not earn its place when it was made, a line each; such a release serves only if somebody says so.
        data: how many data there were when it was trained.
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
    precision: Precision = "float32"
    refused: tuple[str, ...] = ()
    data: Census | None = None
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


def flaw(folder: Path) -> str:
    """Return what is wrong with a release: its manifest, or a file that is not the one that was deployed; empty: it is whole.

    The file's size is compared first, then its SHA-256, read piece by piece.
    """
    onnx = folder / ONNX
    try:
        release = read(folder)
        size = onnx.stat().st_size
        if size != release.onnx_bytes:
            return f"{onnx} has {size} bytes, not the {release.onnx_bytes} that were deployed"
        if atomic.sha256(onnx) != release.onnx_sha256:
            return f"{onnx} is not the file that was deployed"
    except UsageError as error:
        return error.message
    except OSError as error:
        return f"{onnx} cannot be read: {error.strerror or error}"
    return ""


def is_version(name: str) -> bool:
    """Whether a folder of this name is a release."""
    return _VERSION.fullmatch(name) is not None


def versions(models: Path) -> list[str]:
    """Return the releases below a models folder, oldest first."""
    if not models.is_dir():
        return []
    found = [path.name for path in models.iterdir() if not path.is_symlink() and (path / MANIFEST).is_file()]
    return sorted(filter(is_version, found), key=_number)


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
