"""Making a release: the deployed file with its notes, its manifest, its place; and reading the notes back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from onnx import ModelProto

from reconvene_agent import __version__
from reconvene_agent.core import atomic, clock
from reconvene_agent.core import release as releases
from reconvene_agent.core.budget import Budget
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.census import Census
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.release import Latency, Precision, Release
from reconvene_agent.core.shelf import Shelf
from reconvene_agent.worker.data.inputs import kind_of
from reconvene_agent.worker.deploy import export
from reconvene_agent.worker.models.costs import Costs

UNLIMITED = Budget()


@dataclass(frozen=True)
class Facts:
    """What is known of a trained model before it becomes a release."""

    bundle: str
    spec: ModelSpec
    labels: tuple[str, ...]
    sparsity: float
    method: MethodOptions
    widths: dict[str, int]
    costs: Costs
    accuracy: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: Precision = "float32"
    data: Census | None = None
    budget: Budget = UNLIMITED


def notes(facts: Facts) -> dict[str, str]:
    """Return what travels inside the ONNX file, so that an application needs nothing else to use it."""
    return {
        "labels": msgspec.json.encode(facts.labels).decode(),
        "input_size": "x".join(map(str, facts.spec.input)),
        "mean": msgspec.json.encode(facts.mean).decode(),
        "std": msgspec.json.encode(facts.std).decode(),
        **({"pixel_range": "0..1 before mean and std"} if kind_of(facts.spec.input) == "image" else {}),
        "architecture": facts.spec.architecture,
        "sparsity": f"{facts.sparsity:g}",
        "bundle": facts.bundle,
        "precision": facts.precision,
    }


def prepare(proto: ModelProto, facts: Facts, aside: Path) -> Path:
    """Write the deployed file into the folder ``aside``, which is emptied first; return the file."""
    if aside.exists():
        shutil.rmtree(aside)
    with atomic.full_disk_is_no_disk(f"exporting to {aside}"):
        aside.mkdir(parents=True)
    path = aside / releases.ONNX
    export.save(export.annotate(proto, notes(facts)), path)
    return path


def promote(aside: Path, models: Path, facts: Facts, latency: Latency, refused: Sequence[str] = ()) -> tuple[Release, Path]:
    """Make the prepared folder the current release below ``models``; older ones than two steps back are removed.

    One that is ``refused``, for these reasons, is kept there instead, and the one refused before it is removed.

    Raises:
        AgentError: NO_DISK when the disk is full; the current release then stays.
    """
    onnx = aside / releases.ONNX
    digest = atomic.sha256(onnx)
    with atomic.full_disk_is_no_disk(f"making {models}"):
        models.mkdir(parents=True, exist_ok=True)
    release = Release(
        version=releases.version_for(models, digest),
        created=clock.rfc3339(time.time()),
        agent_version=__version__,
        bundle=facts.bundle,
        model=facts.spec,
        labels=facts.labels,
        sparsity=facts.sparsity,
        method=facts.method,
        widths=facts.widths,
        params=facts.costs.params,
        nonzero=facts.costs.nonzero,
        macs=facts.costs.macs,
        accuracy=facts.accuracy,
        latency_ms=latency,
        mean=facts.mean,
        std=facts.std,
        onnx_sha256=digest,
        onnx_bytes=onnx.stat().st_size,
        precision=facts.precision,
        refused=tuple(refused),
        data=facts.data,
        memory_mb=round(facts.costs.memory / 2**20, 3),
        budget=facts.budget,
    )
    atomic.write_bytes(aside / releases.MANIFEST, msgspec.json.format(msgspec.json.encode(release), indent=1))
    shelf = Shelf(models)
    if refused:
        folder = shelf.keep(aside, release.version)
        shelf.sweep()
    else:
        folder = shelf.publish(aside, release.version)
    return releases.read(folder), folder
