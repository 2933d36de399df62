from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.data.inputs import Inputs


def part(inputs: Inputs) -> Part:
    return Part(inputs, np.arange(len(inputs), dtype=np.int64) % 3)


def noise(count: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 5, 7), dtype=np.uint8)


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return numbers of which each channel or feature has a unit of its own."""
    scale = np.float32(10.0) ** np.arange(shape[1], dtype=np.float32).reshape(1, -1, *[1] * (len(shape) - 2))
    return (np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) + 3) * scale


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 40), (9,)], ids=["image", "window", "features"])
def test_normalised_training_inputs_have_mean_0_and_deviation_1(shape: tuple[int, ...]) -> None:
    inputs = noise(300) if len(shape) == 3 else numbers(300, *shape)
    data = Dataset(part(inputs), part(inputs[:4] // 2), (), Skipped())
    found = data.normalized(data.train.inputs)
    others = (0, *range(2, found.ndim))
    assert found.dtype == np.float32
    assert len(data.mean) == len(data.std) == shape[0]
    np.testing.assert_allclose(found.mean(others, np.float64), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(others, np.float64), 1, atol=1e-4)


@pytest.mark.parametrize(("train", "held", "named"), [(1, 5, "1 training"), (5, 1, "1 held-out"), (0, 5, "0 training")])
def test_too_few_images_are_no_data(train: int, held: int, named: str) -> None:
    said = f"the data hold {named} images, at least 2 are needed: add some, or make train/ and val/ folders"
    with pytest.raises(AgentError, match=said) as caught:
        Dataset(part(noise(train)), part(noise(held)), (), Skipped())
    assert caught.value.code is ErrorCode.NO_DATA


@pytest.mark.parametrize(("shape", "named"), [((6, 128), "windows"), ((24,), "rows")])
def test_too_few_inputs_of_a_sensor_are_named_as_what_they_are(shape: tuple[int, ...], named: str) -> None:
    with pytest.raises(AgentError, match=f"hold 1 held-out {named}, .* or bring a held-out part as x_val and y_val") as caught:
        Dataset(part(numbers(5, *shape)), part(numbers(1, *shape)), (), Skipped())
    assert caught.value.code is ErrorCode.NO_DATA


def unbalanced(count: int) -> Dataset:
    """Return data of which the first class has nine in ten, and each input tells its place."""
    inputs = np.arange(count, dtype=np.float32).reshape(count, 1)
    classes = np.where(np.arange(count) % 10 < 9, 0, 1 + np.arange(count) // 10 % 2)
    return Dataset(Part(inputs, classes.astype(np.int64)), Part(inputs[:4], classes[:4].astype(np.int64)), (), Skipped())


def test_a_sample_holds_all_classes_alike_as_far_as_there_are_enough() -> None:
    data = unbalanced(200)
    for count, expected in ((6, [2, 2, 2]), (30, [10, 10, 10]), (50, [30, 10, 10]), (200, [180, 10, 10])):
        _, classes = data.sample(count, seed=3)
        assert np.bincount(classes).tolist() == expected


def test_a_sample_is_normalised_and_its_classes_are_those_of_its_inputs() -> None:
    data = unbalanced(100)
    inputs, classes = data.sample(40, seed=0)
    places = np.rint(inputs * data.std[0] + data.mean[0]).astype(int).ravel()
    assert len(set(places)) == 40
    assert data.train.classes[places].tolist() == classes.tolist()
    np.testing.assert_array_equal(inputs, data.normalized(data.train.inputs[places]))


def test_a_sample_is_that_of_its_seed() -> None:
    data = unbalanced(100)
    one, same, other = (data.sample(20, seed)[0].flatten().tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_a_sample_of_more_than_there_are_is_all_there_are() -> None:
    inputs, classes = unbalanced(20).sample(128, seed=0)
    assert (len(inputs), len(classes)) == (20, 20)


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


def test_the_fingerprint_tells_every_number_of_a_window() -> None:
    windows, held = numbers(6, 2, 8), numbers(4, 2, 8, seed=1)
    changed = windows.copy()
    changed[-1, -1, -1] = np.nextafter(changed[-1, -1, -1], np.float32(np.inf))
    one, other = (Dataset(part(each), part(held), (), Skipped()).fingerprint() for each in (windows, changed))
    assert one == Dataset(part(windows.copy()), part(held), (), Skipped()).fingerprint()
    assert one != other
