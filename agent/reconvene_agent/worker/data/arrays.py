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
from reconvene_agent.worker.data.images import Pixels
from reconvene_agent.worker.data.split import held_out

_NAMES = ("x", "y", "x_val", "y_val")


def load(path: Path, spec: ModelSpec, labels: Sequence[str], validation: float) -> Dataset:
    """Read an archive of images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or 0..1, and class numbers (N,).

    Raises:
        AgentError: BAD_DATA when the file is damaged or its arrays do not fit the bundle.
    """
    arrays = _read(path)
    train = _part(arrays["x"], arrays["y"], spec, path)
    if "x_val" in arrays:
        held = _part(arrays["x_val"], arrays["y_val"], spec, path)
        return Dataset(train, held, tuple(labels), Skipped())
    aside = np.array([held_out(image.tobytes(), validation) for image in train.images], dtype=bool)
    split = [Part(train.images[chosen], train.classes[chosen]) for chosen in (~aside, aside)]
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


def _part(x: NDArray[np.generic], y: NDArray[np.generic], spec: ModelSpec, path: Path) -> Part:
    if not x.ndim or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise AgentError(f"{path}: the classes must be one whole number for each image of x", ErrorCode.BAD_DATA)
    classes = y.astype(np.int64)
    if len(classes) and (classes.min() < 0 or classes.max() >= spec.classes):
        raise AgentError(f"{path}: class numbers must lie between 0 and {spec.classes - 1}", ErrorCode.BAD_DATA)
    return Part(_pixels(_channels_first(x, spec, path), path), classes)


def _channels_first(x: NDArray[np.generic], spec: ModelSpec, path: Path) -> NDArray[np.generic]:
    channels, height, width = spec.input
    shape = x.shape[1:]
    if shape == (channels, height, width):
        return x
    if shape == (height, width, channels):
        return np.transpose(x, (0, 3, 1, 2))
    if shape == (height, width) and channels == 1:
        return x[:, np.newaxis]
    raise AgentError(
        f"{path}: images of {'×'.join(map(str, shape))} do not fit the bundle's input of {channels}×{height}×{width}",
        ErrorCode.BAD_DATA,
    )


def _pixels(x: NDArray[np.generic], path: Path) -> Pixels:
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x, dtype=np.uint8)
    if np.issubdtype(x.dtype, np.floating) and x.min(initial=0.0) >= 0.0 and x.max(initial=1.0) <= 1.0:
        return np.ascontiguousarray(np.rint(x.astype(np.float32) * 255.0), dtype=np.uint8)
    raise AgentError(f"{path}: pixels must be uint8, or numbers between 0 and 1", ErrorCode.BAD_DATA)
