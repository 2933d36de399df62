"""Random changes of training images, drawn from a generator that is handed in."""

from __future__ import annotations

import torch
from torch import Tensor

from reconvene_agent.core.options import Augment

# A shift of an eighth of the side is 4 pixels at 32, the usual padding on CIFAR-10.
SHIFT_SHARE = 8


def augment(images: Tensor, kind: Augment, generator: torch.Generator) -> Tensor:
    """Shift each image (N, C, H, W) by its own random amount, and mirror half of them for ``shift-flip``; edges repeat.

    Windows and features come back as they are, whatever ``kind`` says: where in a window a signal lies, or which side of it is
    first, may be what tells its class.
    """
    if kind == "none" or images.ndim != 4:
        return images
    shifted = _shift(images, generator)
    if kind == "shift":
        return shifted
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), shifted.flip(3), shifted)


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    rows = _source(count, height, generator).view(count, 1, height, 1)
    columns = _source(count, width, generator).view(count, 1, 1, width)
    numbers = torch.arange(count).view(count, 1, 1, 1)
    return images[numbers, torch.arange(channels).view(1, channels, 1, 1), rows, columns]


def _source(count: int, side: int, generator: torch.Generator) -> Tensor:
    reach = side // SHIFT_SHARE
    offsets = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    return (torch.arange(side).view(1, side) + offsets).clamp(0, side - 1)
