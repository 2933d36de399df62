"""From raw inputs to what a network takes: statistics of the training part, and normalisation by them.

Images count on a scale of 0..1; windows and features are in whatever units they come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.worker.data.inputs import Inputs

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, each per channel or feature."""

# Pixels are counted some images at a time, and other numbers some at a time: both are widened to eight bytes.
COUNTED_AT_ONCE = 256
SUMMED_AT_ONCE = 1 << 20
WHITE = 255.0
# A channel that never changes would otherwise be divided by zero.
MIN_STD = 1e-3
# Where numbers differ by less than this share of their mean, float32 has rounded them and there is nothing to scale up.
RESOLUTION = 1e-7


def statistics(inputs: Inputs, let_go: Callable[[], None] = lambda: None) -> Statistics:
    """Return the mean and deviation of each channel (N, C, …) or feature (N, F); deviations are never 0.

    ``let_go`` is called whenever some of the inputs are done with.
    """
    return _of_levels(inputs, let_go) if inputs.dtype == np.uint8 else _of_numbers(inputs, let_go)


def normalize(inputs: Inputs, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Take off the ``mean`` of each channel or feature and divide by its ``std``; pixels are scaled to 0..1 before."""
    shape = (1, -1) + (1,) * (inputs.ndim - 2)
    centre, spread = (np.asarray(values, dtype=np.float32).reshape(shape) for values in (mean, std))
    scaled = inputs.astype(np.float32)
    if inputs.dtype == np.uint8:
        scaled /= np.float32(WHITE)
    scaled -= centre
    scaled /= spread
    return scaled


def _of_levels(images: Inputs, let_go: Callable[[], None]) -> Statistics:
    counts = _histogram(images, let_go)
    levels = np.arange(256) / WHITE
    mean = counts @ levels / counts.sum(axis=1)
    variance = counts @ levels**2 / counts.sum(axis=1) - mean**2
    std = np.sqrt(np.maximum(variance, MIN_STD**2))
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)


def _histogram(images: Inputs, let_go: Callable[[], None]) -> NDArray[np.int64]:
    """Return how often each level occurs in each channel, as (C, 256)."""
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), COUNTED_AT_ONCE):
        some = images[start : start + COUNTED_AT_ONCE]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(some[:, channel].ravel(), minlength=256)
        let_go()
    return counts


def _of_numbers(inputs: Inputs, let_go: Callable[[], None]) -> Statistics:
    """In two passes, since the squares of numbers far from zero would leave nothing of a small deviation."""
    others = (0, *range(2, inputs.ndim))
    count = inputs.size // inputs.shape[1]
    mean = sum(some.sum(axis=others) for some in _widened(inputs, let_go)) / count
    centre = np.reshape(mean, (1, -1) + (1,) * (inputs.ndim - 2))
    std = np.sqrt(sum(np.square(some - centre).sum(axis=others) for some in _widened(inputs, let_go)) / count)
    least = np.maximum(RESOLUTION * np.abs(mean), np.finfo(np.float32).tiny)
    return _shortest(mean), _shortest(np.where(std > least, std, 1.0))


def _widened(inputs: Inputs, let_go: Callable[[], None]) -> Iterator[NDArray[np.float64]]:
    """Return some rows at a time as float64."""
    at_once = max(1, SUMMED_AT_ONCE // (inputs.size // len(inputs)))
    for start in range(0, len(inputs), at_once):
        yield inputs[start : start + at_once].astype(np.float64)
        let_go()


def _shortest(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Round to nine significant digits, which tell every float32."""
    return tuple(float(f"{value:.9g}") for value in values)
