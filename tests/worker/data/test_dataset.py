from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import COUNTED_AT_ONCE, MIN_STD, Dataset, Part, Skipped


def part(images: NDArray[np.uint8]) -> Part:
    return Part(images, np.arange(len(images), dtype=np.int64) % 3)


def noise(count: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 5, 7), dtype=np.uint8)


@pytest.mark.parametrize("count", [2, COUNTED_AT_ONCE - 1, COUNTED_AT_ONCE, COUNTED_AT_ONCE + 1, 700])
def test_the_statistics_are_those_of_the_training_pixels_scaled_to_1(count: int) -> None:
    images = noise(count) // np.array([1, 2, 3], dtype=np.uint8).reshape(1, 3, 1, 1)
    data = Dataset(part(images), part(noise(4, seed=9)), (), Skipped())
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(data.std, scaled.std((0, 2, 3)), atol=1e-6)


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    data = Dataset(part(noise(300)), part(noise(4)), (), Skipped())
    found = data.normalized(data.train.images)
    np.testing.assert_allclose(found.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 2, 3)), 1, atol=1e-4)


def test_a_channel_that_never_changes_does_not_divide_by_zero() -> None:
    images = noise(10)
    images[:, 1] = 255
    data = Dataset(part(images), part(images), (), Skipped())
    assert data.mean[1] == 1.0
    assert data.std[1] == MIN_STD
    assert np.isfinite(data.normalized(images)).all()


@pytest.mark.parametrize(("train", "held", "named"), [(1, 5, "1 training"), (5, 1, "1 held-out"), (0, 5, "0 training")])
def test_too_few_images_are_no_data(train: int, held: int, named: str) -> None:
    with pytest.raises(AgentError, match=f"the data hold {named} images, at least 2 are needed") as caught:
        Dataset(part(noise(train)), part(noise(held)), (), Skipped())
    assert caught.value.code is ErrorCode.NO_DATA


def test_the_fingerprint_tells_every_pixel_class_and_place() -> None:
    def fingerprint(images: NDArray[np.uint8], held: NDArray[np.uint8], shift: int = 0) -> str:
        train = Part(images, (np.arange(len(images), dtype=np.int64) + shift) % 3)
        return Dataset(train, part(held), (), Skipped()).fingerprint()

    one, other = noise(6), noise(4, seed=1)
    changed = one.copy()
    changed[-1, -1, -1, -1] ^= 1
    known = fingerprint(one, other)
    assert known == fingerprint(one.copy(), other.copy())
    assert len({known, fingerprint(changed, other), fingerprint(one[::-1], other), fingerprint(other, one)}) == 4
    assert known != fingerprint(one, other, shift=1)
    assert known != fingerprint(one.reshape(6, 1, 15, 7), other.reshape(4, 1, 15, 7))
