from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reconvene_agent.worker.data import scaling
from reconvene_agent.worker.data.scaling import COUNTED_AT_ONCE, MIN_STD, normalize, statistics


def levels(count: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, channels, 5, 7), dtype=np.uint8)


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("count", [2, COUNTED_AT_ONCE - 1, COUNTED_AT_ONCE, COUNTED_AT_ONCE + 1, 700])
def test_the_statistics_of_images_are_those_of_their_pixels_scaled_to_1(count: int) -> None:
    images = levels(count) // np.array([1, 2, 3], dtype=np.uint8).reshape(1, 3, 1, 1)
    mean, std = statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), atol=1e-6)


def test_a_channel_of_one_level_does_not_divide_by_zero() -> None:
    images = levels(10)
    images[:, 1] = 255
    mean, std = statistics(images)
    assert (mean[1], std[1]) == (1.0, MIN_STD)


@pytest.mark.parametrize("at_once", [1, 64, 10_000])
@pytest.mark.parametrize(("shape", "others"), [((50, 4, 30), (0, 2)), ((50, 4), (0,))], ids=["window", "features"])
def test_the_statistics_of_numbers_do_not_depend_on_how_many_are_summed_at_once(
    at_once: int, shape: tuple[int, ...], others: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "SUMMED_AT_ONCE", at_once)
    inputs = numbers(*shape)
    mean, std = statistics(inputs)
    np.testing.assert_allclose(mean, inputs.mean(others, np.float64), rtol=1e-8)
    np.testing.assert_allclose(std, inputs.std(others, np.float64), rtol=1e-8)


@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1.0, 1e30])
def test_numbers_count_in_whatever_unit_they_come(unit: float) -> None:
    inputs = numbers(200, 3) * np.float32(unit)
    found = normalize(inputs, *statistics(inputs))
    np.testing.assert_allclose(found.std(0), 1, atol=1e-4)


def test_a_small_deviation_far_from_zero_is_not_lost() -> None:
    pressure = numbers(2000, 1) + np.float32(101_325)
    (mean,), (std,) = statistics(pressure)
    assert mean == pytest.approx(pressure.mean(dtype=np.float64), abs=1e-3)
    assert std == pytest.approx(pressure.std(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -7e30, 101_325.0])
def test_numbers_that_never_change_are_left_at_0(value: float) -> None:
    inputs = numbers(1000, 2)
    inputs[:, 1] = value
    mean, std = statistics(inputs)
    assert std[1] == 1.0
    np.testing.assert_allclose(normalize(inputs, mean, std)[:, 1], 0, atol=1e-5)


def test_statistics_survive_json_as_they_are_used() -> None:
    mean, std = statistics(numbers(100, 6, 9) / np.float32(3))
    for value in (*mean, *std):
        assert float(repr(value)) == value
        assert len(repr(value)) <= 16


def test_normalising_pixels_scales_takes_off_the_mean_and_divides() -> None:
    pixels = np.array([0, 255, 51, 102], dtype=np.uint8).reshape(1, 2, 1, 2)
    found = normalize(pixels, (0.5, 0.2), (0.25, 2.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), [-2.0, 2.0, 0.0, 0.1], atol=1e-6)
    assert pixels.ravel().tolist() == [0, 255, 51, 102]


@pytest.mark.parametrize("length", [None, 3])
def test_normalising_numbers_takes_off_the_mean_and_divides_and_leaves_them_be(length: int | None) -> None:
    row = np.array([[1.0, 300.0]], dtype=np.float32)
    inputs = row if length is None else np.repeat(row[:, :, np.newaxis], length, axis=2)
    before = inputs.copy()
    found = normalize(inputs, (0.5, 100.0), (0.25, 50.0))
    assert (found.dtype, found.shape) == (np.float32, inputs.shape)
    np.testing.assert_allclose(found.reshape(2, -1), np.array([[2.0], [4.0]]) * np.ones(length or 1), rtol=1e-6)
    assert np.array_equal(inputs, before)
