"""The images of one run, in memory: two parts, labels, and the statistics that normalise them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.images import Pixels, normalize

# Pixels are counted some images at a time: counting widens each to eight bytes.
COUNTED_AT_ONCE = 256
# A channel that never changes would otherwise be divided by zero.
MIN_STD = 1e-3


@dataclass(frozen=True)
class Part:
    """Images (N, C, H, W) uint8 and their classes (N,) int64."""

    images: Pixels
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Skipped:
    """What was left out and why: every file counted, the first few named."""

    count: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """``mean`` and ``std`` are per channel, of training pixels scaled to 0..1; ``labels`` may be empty."""

    train: Part
    validation: Part
    labels: tuple[str, ...]
    skipped: Skipped
    mean: tuple[float, ...] = field(init=False)
    std: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        for part, name in ((self.train, "training"), (self.validation, "held-out")):
            if len(part) < 2:
                raise AgentError(
                    f"the data hold {len(part)} {name} images, at least 2 are needed: add some, or make train/ and val/ folders",
                    ErrorCode.NO_DATA,
                )
        counts = _histogram(self.train.images)
        levels = np.arange(256) / 255.0
        mean = counts @ levels / counts.sum(axis=1)
        variance = counts @ levels**2 / counts.sum(axis=1) - mean**2
        std = np.sqrt(np.maximum(variance, MIN_STD**2))
        object.__setattr__(self, "mean", tuple(round(float(value), 6) for value in mean))
        object.__setattr__(self, "std", tuple(round(float(value), 6) for value in std))

    def normalized(self, images: Pixels) -> NDArray[np.float32]:
        return normalize(images, self.mean, self.std)

    def fingerprint(self) -> str:
        """Return a SHA-256 over every image and class: two runs with the same one saw the same data in the same order."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(repr(part.images.shape).encode())
            digest.update(np.ascontiguousarray(part.images).data)
            digest.update(part.classes.data)
        return digest.hexdigest()


def _histogram(images: Pixels) -> NDArray[np.int64]:
    """Return how often each level occurs in each channel, as (C, 256)."""
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), COUNTED_AT_ONCE):
        some = images[start : start + COUNTED_AT_ONCE]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(some[:, channel].ravel(), minlength=256)
    return counts
