from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.training.augment import augment


def numbered(count: int, side: int) -> Tensor:
    """Return images of which every pixel is told by its number, in two channels."""
    plane = torch.arange(count * side * side, dtype=torch.float32).reshape(count, 1, side, side)
    return torch.cat([plane, plane + 0.5], 1)


def shift_of(image: Tensor, original: Tensor, reach: int) -> tuple[int, int]:
    """Return by how much an image was shifted, its edges being repeated."""
    side = image.shape[-1]
    found = []
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            rows = (torch.arange(side) + down).clamp(0, side - 1)
            columns = (torch.arange(side) + right).clamp(0, side - 1)
            if torch.equal(image, original[:, rows][:, :, columns]):
                found.append((down, right))
    assert len(found) == 1
    return found[0]


def test_none_changes_nothing() -> None:
    images = numbered(3, 8)
    assert augment(images, "none", generator(0, "a")) is images


@pytest.mark.parametrize("kind", ["none", "shift", "shift-flip"])
@pytest.mark.parametrize("shape", [(20, 3, 64), (20, 64)], ids=["window", "features"])
def test_what_is_no_image_comes_back_as_it_is(shape: tuple[int, ...], kind: str) -> None:
    inputs = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert augment(inputs, kind, generator(0, "a")) is inputs


@pytest.mark.parametrize(("side", "reach"), [(8, 1), (32, 4)])
def test_each_image_is_shifted_by_its_own_amount_up_to_an_eighth_of_its_side(side: int, reach: int) -> None:
    images = numbered(60, side)
    shifted = augment(images, "shift", generator(0, "a"))
    assert shifted.shape == images.shape
    shifts = {shift_of(image, original, reach) for image, original in zip(shifted, images, strict=True)}
    for axis in (0, 1):
        assert {shift[axis] for shift in shifts} == set(range(-reach, reach + 1))


def test_an_image_too_small_to_shift_is_left_alone() -> None:
    images = numbered(5, 7)
    assert torch.equal(augment(images, "shift", generator(0, "a")), images)


def test_about_half_of_the_images_are_mirrored_and_all_channels_alike() -> None:
    images = numbered(400, 7)
    flipped = augment(images, "shift-flip", generator(0, "a"))
    mirrored = [torch.equal(image, original.flip(2)) for image, original in zip(flipped, images, strict=True)]
    same = [torch.equal(image, original) for image, original in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert sum(mirrored) == pytest.approx(200, abs=40)


@pytest.mark.parametrize("kind", ["shift", "shift-flip"])
def test_the_generator_decides_alone(kind: str) -> None:
    images = numbered(20, 16)
    one = augment(images, kind, generator(1, "a"))
    torch.rand(3)
    assert torch.equal(one, augment(images, kind, generator(1, "a")))
    assert not torch.equal(one, augment(images, kind, generator(2, "a")))
