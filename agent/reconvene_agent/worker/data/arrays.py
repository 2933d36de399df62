"""NumPy archives: ``x`` and ``y``, and ``x_val`` and ``y_val`` where the held-out part is given."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.data.inputs import Inputs, items, kind_of
from reconvene_agent.worker.data.split import held_out

_NAMES = ("x", "y", "x_val", "y_val")


def load(path: Path, spec: ModelSpec, labels: Sequence[str], validation: float) -> Dataset:
    """Read an archive of inputs ``x`` and class numbers ``y`` (N,).

    ``x`` is images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or 0..1; windows (N, L), (N, L, C) or (N, C, L), or rows
    of features (N, F), integers or floats of any size. Where sides are equal, channels are taken to come first.

    Raises:
        AgentError: BAD_DATA when the file is damaged or its arrays do not fit the bundle.
    """
    arrays = _read(path)
    train = _part("x", arrays, spec, path)
    if "x_val" in arrays:
        return Dataset(train, _part("x_val", arrays, spec, path), tuple(labels), Skipped())
    aside = np.array([held_out(each.tobytes(), validation) for each in train.inputs], dtype=bool)
    split = [Part(train.inputs[chosen], train.classes[chosen]) for chosen in (~aside, aside)]
    return Dataset(split[0], split[1], tuple(labels), Skipped())


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    # Opened here, since numpy leaves a file that it cannot read open; what it raises on a damaged one is any of these.
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            names = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
            if not {"x", "y"} <= set(names) or ("x_val" in names) != ("y_val" in names):
                found = ", ".join(names) or "no named arrays"
                raise ValueError(f"it must hold x and y, and x_val and y_val both or neither; it holds {found}")
            return {name: archive[name] for name in _NAMES if name in names}
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise AgentError(f"{path} is not an .npz file that can be used: {error}", ErrorCode.BAD_DATA) from error


def _part(name: str, arrays: dict[str, NDArray[np.generic]], spec: ModelSpec, path: Path) -> Part:
    x, y = arrays[name], arrays[name.replace("x", "y")]
    kind = kind_of(spec.input)
    if not x.ndim or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise AgentError(f"{path}: the classes must be one whole number for each {items(kind, 1)} of {name}", ErrorCode.BAD_DATA)
    classes = y.astype(np.int64)
    if len(classes) and (classes.min() < 0 or classes.max() >= spec.classes):
        raise AgentError(f"{path}: class numbers must lie between 0 and {spec.classes - 1}", ErrorCode.BAD_DATA)
    found = _channels_first(x, spec, path)
    return Part(_levels(found, path) if kind == "image" else _numbers(found, name, path), classes)


def _channels_first(x: NDArray[np.generic], spec: ModelSpec, path: Path) -> NDArray[np.generic]:
    """Return inputs (N, F) as they are, and others as (N, C, …)."""
    channels, places = spec.input[0], spec.input[1:]
    shape = x.shape[1:]
    if shape == spec.input:
        return x
    if places and shape == (*places, channels):
        return np.moveaxis(x, -1, 1)
    if places and shape == places and channels == 1:
        return x[:, np.newaxis]
    found, expected = ("×".join(map(str, sides)) for sides in (shape, spec.input))
    raise AgentError(
        f"{path}: {items(kind_of(spec.input))} of {found or 'a single number'} do not fit the bundle's input of {expected}",
        ErrorCode.BAD_DATA,
    )


def _levels(x: NDArray[np.generic], path: Path) -> Inputs:
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x, dtype=np.uint8)
    if np.issubdtype(x.dtype, np.floating) and x.min(initial=0.0) >= 0.0 and x.max(initial=1.0) <= 1.0:
        return np.ascontiguousarray(np.rint(x.astype(np.float32) * 255.0), dtype=np.uint8)
    raise AgentError(f"{path}: pixels must be uint8, or numbers between 0 and 1", ErrorCode.BAD_DATA)


def _numbers(x: NDArray[np.generic], name: str, path: Path) -> Inputs:
    if not np.issubdtype(x.dtype, np.integer) and not np.issubdtype(x.dtype, np.floating):
        raise AgentError(f"{path}: {name} must hold integers or floats, not {x.dtype}", ErrorCode.BAD_DATA)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told below
        numbers = np.ascontiguousarray(x, dtype=np.float32)
    broken = int((~np.isfinite(numbers)).any(axis=tuple(range(1, numbers.ndim))).sum())
    if broken:
        raise AgentError(
            f"{path}: {broken} of the {len(numbers)} rows of {name} hold values that are not finite: mend them or leave them out",
            ErrorCode.BAD_DATA,
        )
    return numbers
