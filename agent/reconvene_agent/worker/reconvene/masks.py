"""Unstructured masks of the sensitive layers, and how they hold while the model trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reconvene_agent.worker.reconvene.criteria.cut import largest

# PyTorch makes numbers of a mask before it multiplies by them: so many at a time.
_AT_ONCE = 1 << 15

Masks = dict[str, Tensor]
"""Boolean tensors by layer name, in the shape of the layer's weight; False is pruned."""


def draw(model: nn.Module, sizes: Mapping[str, int]) -> Masks:
    """Mask all but the ``sizes[name]`` largest |w| of each layer named."""
    return {name: largest(_weight(model, name), kept) for name, kept in sizes.items()}


def apply(model: nn.Module, masks: Masks) -> None:
    """Set every pruned weight to zero. Done after each step of the optimizer, since momentum and decay move zeros too."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = _weight(model, name)
            rows = max(1, _AT_ONCE // math.prod(weight.shape[1:]))
            for some, part in zip(torch.split(weight, rows), torch.split(mask, rows), strict=True):
                some.mul_(part)


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight")
