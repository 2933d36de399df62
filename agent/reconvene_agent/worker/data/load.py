"""The one way in: local data of any kind become a Dataset."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core import census
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data import classes, tables
from reconvene_agent.worker.data.arrays import ArrayFile
from reconvene_agent.worker.data.cache import Cache, Decoded, Source
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.folders import ImageFolder, Report
from reconvene_agent.worker.data.inputs import kind_of
from reconvene_agent.worker.data.tables import Tables

OVERLAP = TrainingOptions().overlap


def load(
    path: Path,
    spec: ModelSpec,
    labels: Sequence[str],
    validation: float,
    report: Report,
    cache: Cache | None = None,
    overlap: float = OVERLAP,
) -> Dataset:
    """Read an image folder, an ``.npz`` file of images, windows or rows of features, or CSV files of windows or features.

    ``overlap`` is the share of its length that a window has in common with the next one, where recordings are cut.

    The decoded inputs lie in ``cache``, and are taken from there while the files are as they were, or are gone altogether;
    without one they lie in a file that is gone with the process.

    Raises:
        AgentError: NO_DATA when there is nothing at ``path``, BAD_DATA when it does not fit the bundle, NO_DISK when what is
            decoded needs more disk than there is.
    """
    question = repr((str(path), spec.input, spec.classes, tuple(labels), validation, overlap))
    earlier: Decoded | None = None
    counted = census.take(path)
    try:
        source = _source(path, spec, labels, validation, overlap, report)
    except AgentError as error:
        if cache is not None and error.code is ErrorCode.NO_DATA:
            earlier = cache.recall(question, None)
        if earlier is None:
            raise
        gone = f"{error.message}; this run goes on with the inputs that it has decoded before"
        return _dataset(earlier, (gone,), anew=False)
    marks = _marks(source)
    if cache is not None:
        earlier = cache.recall(question, marks)
        if earlier is not None:
            return _dataset(earlier, (), anew=False)
        return _described(cache.decode(question, source, marks, counted), spec)
    with tempfile.TemporaryDirectory(prefix="reconvene-agent-", ignore_cleanup_errors=True) as folder:
        return _described(Cache(Path(folder, "data"), durable=False).decode(question, source, marks, counted), spec)


def _described(decoded: Decoded, spec: ModelSpec) -> Dataset:
    return _dataset(decoded, classes.remarks(decoded.train, decoded.held_out, decoded.found.labels, spec.classes), anew=True)


def _dataset(decoded: Decoded, remarks: tuple[str, ...], anew: bool) -> Dataset:
    found = decoded.found
    return Dataset(decoded.train, decoded.held_out, found.labels, found.skipped, remarks, anew, found.census)


def _source(path: Path, spec: ModelSpec, labels: Sequence[str], validation: float, overlap: float, report: Report) -> Source:
    kind = kind_of(spec.input)
    ways = "a folder of images or an .npz file" if kind == "image" else "a CSV file, a folder of such or an .npz file"
    try:
        if path.is_dir() and kind == "image":
            return ImageFolder(path, spec, labels, validation, report)
        if path.is_dir() or (path.suffix == tables.SUFFIX and path.is_file() and kind != "image"):
            return Tables(path, spec, labels, validation, overlap, report)
        if path.suffix == ".npz" and path.is_file():
            return ArrayFile(path, spec, labels, validation, report)
        exists = path.exists()
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror or error}", ErrorCode.NO_DATA) from error
    if exists:
        raise AgentError(f"{path} is not what {spec.architecture} learns from: name {ways}", ErrorCode.BAD_DATA)
    raise AgentError(f"{path} does not exist: name {ways}", ErrorCode.NO_DATA)


def _marks(source: Source) -> NDArray[np.uint64]:
    """Return eight bytes for each file as it is: its name, size and time of change."""
    digests = (hashlib.sha256(repr(file).encode(errors="surrogatepass")).digest()[:8] for file in source.files())
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
