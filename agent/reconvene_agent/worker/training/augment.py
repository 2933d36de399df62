"""Random changes of training inputs, drawn from a generator that is handed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reconvene_agent.core.architectures import Kind
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.options import Augment

# A shift of an eighth of the side is 4 pixels at 32, the usual padding on CIFAR-10.
SHIFT_SHARE = 8
# Of a channel's own deviation in a window (Um et al. 2017, arXiv 1706.00527): noise, and the largest change of scale.
NOISE = 0.05
SCALE = 0.1

Change = Callable[[Tensor, torch.Generator], Tensor]


def change_for(kind: Kind, wanted: Augment) -> Change | None:
    """Return how the raw inputs of a kind are changed, or None where they are left as they are.

    Raises:
        UsageError: such inputs cannot be changed in that way.
    """
    chosen = _USUAL[kind] if wanted == "auto" else wanted
    if chosen == "none":
        return None
    if chosen not in _CHANGES[kind]:
        possible = ", ".join(("auto", "none", *_CHANGES[kind]))
        raise UsageError(f"augment {chosen!r} is not for a model of {kind} inputs: take one of {possible}")
    return _CHANGES[kind][chosen]


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image (N, C, H, W) by its own random amount; edges repeat."""
    count, channels, height, width = images.shape
    rows = _source(count, height, generator).view(count, 1, height, 1)
    columns = _source(count, width, generator).view(count, 1, 1, width)
    numbers = torch.arange(count).view(count, 1, 1, 1)
    return images[numbers, torch.arange(channels).view(1, channels, 1, 1), rows, columns]


def shift_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image, and mirror half of them."""
    shifted = shift(images, generator)
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), shifted.flip(3), shifted)


def jitter(windows: Tensor, generator: torch.Generator) -> Tensor:
    """Scale each channel of each window (N, C, L) about its mean and add noise; where a signal lies in it stays."""
    shape = (len(windows), windows.shape[1], 1)
    mean, deviation = windows.mean(2, keepdim=True), windows.std(2, keepdim=True)
    scale = 1 + SCALE * (2 * torch.rand(shape, generator=generator) - 1)
    noise = torch.randn(windows.shape, generator=generator)
    return mean + (windows - mean) * scale + NOISE * deviation * noise


_CHANGES: dict[Kind, dict[Augment, Change]] = {
    "image": {"shift": shift, "shift-flip": shift_flip},
    "window": {"jitter": jitter},
    "features": {},
}
_USUAL: dict[Kind, Augment] = {"image": "shift", "window": "jitter", "features": "none"}


def _source(count: int, side: int, generator: torch.Generator) -> Tensor:
    reach = side // SHIFT_SHARE
    offsets = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    return (torch.arange(side).view(1, side) + offsets).clamp(0, side - 1)
