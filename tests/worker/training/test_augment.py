from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.options import Augment
from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.training.augment import NOISE, SCALE, Change, change_for, jitter, shift, shift_flip


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


@pytest.mark.parametrize(
    ("kind", "wanted", "change"),
    [
        ("image", "auto", shift),
        ("image", "shift-flip", shift_flip),
        ("image", "none", None),
        ("window", "auto", jitter),
        ("window", "none", None),
        ("features", "auto", None),
        ("features", "none", None),
    ],
)
def test_each_kind_of_input_has_its_own_changes(kind: str, wanted: str, change: object) -> None:
    assert change_for(kind, wanted) is change


@pytest.mark.parametrize(
    ("kind", "wanted", "possible"),
    [
        ("image", "jitter", "auto, none, shift, shift-flip"),
        ("window", "shift", "auto, none, jitter"),
        ("features", "jitter", "auto, none"),
    ],
)
def test_a_change_that_is_not_for_such_inputs_is_refused_with_what_is(kind: str, wanted: str, possible: str) -> None:
    with pytest.raises(UsageError, match=f"augment '{wanted}' is not for a model of {kind} inputs: take one of {possible}"):
        change_for(kind, wanted)


def test_every_change_that_can_be_asked_for_is_for_some_inputs() -> None:
    def usable(wanted: str, kind: str) -> bool:
        try:
            change_for(kind, wanted)
        except UsageError:
            return False
        return True

    assert all(any(usable(wanted, kind) for kind in ("image", "window", "features")) for wanted in get_args(Augment))


def test_windows_are_scaled_about_their_mean_and_get_noise_by_their_own_deviation() -> None:
    time = torch.arange(200) / 200 * 6.28
    windows = torch.stack([1e4 + 100 * torch.sin(time), 1e-3 * torch.cos(time)]).repeat(50, 1, 1)
    changed = jitter(windows, generator(0, "a"))
    assert changed.shape == windows.shape
    mean, deviation = windows.mean(2, keepdim=True), windows.std(2, keepdim=True)
    scales = ((changed - mean) * (windows - mean)).sum(2) / (windows - mean).square().sum(2)
    assert scales.min() > 1 - SCALE - 0.05
    assert scales.max() < 1 + SCALE + 0.05
    assert scales.std(0).min() > SCALE / 4
    noise = (changed - mean - (windows - mean) * scales[..., None]) / deviation
    assert noise.std((0, 2)).tolist() == pytest.approx([NOISE, NOISE], rel=0.1)


def test_a_channel_that_never_changes_stays_what_it_is() -> None:
    windows = torch.full((4, 2, 16), 7.0)
    assert torch.equal(jitter(windows, generator(0, "a")), windows)


@pytest.mark.parametrize(("side", "reach"), [(8, 1), (32, 4)])
def test_each_image_is_shifted_by_its_own_amount_up_to_an_eighth_of_its_side(side: int, reach: int) -> None:
    images = numbered(60, side)
    shifted = shift(images, generator(0, "a"))
    assert shifted.shape == images.shape
    shifts = {shift_of(image, original, reach) for image, original in zip(shifted, images, strict=True)}
    for axis in (0, 1):
        assert {shift[axis] for shift in shifts} == set(range(-reach, reach + 1))


def test_an_image_too_small_to_shift_is_left_alone() -> None:
    images = numbered(5, 7)
    assert torch.equal(shift(images, generator(0, "a")), images)


def test_about_half_of_the_images_are_mirrored_and_all_channels_alike() -> None:
    images = numbered(400, 7)
    flipped = shift_flip(images, generator(0, "a"))
    mirrored = [torch.equal(image, original.flip(2)) for image, original in zip(flipped, images, strict=True)]
    same = [torch.equal(image, original) for image, original in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert sum(mirrored) == pytest.approx(200, abs=40)


@pytest.mark.parametrize(
    ("change", "inputs"), [(shift, numbered(20, 16)), (shift_flip, numbered(20, 16)), (jitter, numbered(20, 16).flatten(2))]
)
def test_the_generator_decides_alone(change: Change, inputs: Tensor) -> None:
    one = change(inputs, generator(1, "a"))
    torch.rand(3)
    assert torch.equal(one, change(inputs, generator(1, "a")))
    assert not torch.equal(one, change(inputs, generator(2, "a")))
