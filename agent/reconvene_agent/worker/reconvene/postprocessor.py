"""Model Post-Processor: everything around the narrowed layers is made to fit, and sensitive layers get their masks.

Eccles et al. 2024 (arXiv 2404.16877). Works on the meta device: only the small model is ever given memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.reconvene.groups import ChannelGroup


def resize(model: nn.Module, groups: Sequence[ChannelGroup], widths: Sequence[int]) -> nn.Module:
    """Give every layer of a model on the meta device the size that its groups' widths ask for; changes the model itself."""
    for group, width in zip(groups, widths, strict=True):
        if width == group.width:
            continue
        for slot in group.slots:
            layer = model.get_submodule(slot.layer)
            if isinstance(layer, nn.Conv2d):
                _resize_convolution(layer, slot.side, width)
            elif isinstance(layer, nn.BatchNorm2d):
                _resize_norm(layer, width)
            elif isinstance(layer, nn.Linear):
                _resize_linear(layer, slot.side, width * slot.times)
    return model


def _resize_convolution(layer: nn.Conv2d, side: str, width: int) -> None:
    if side == "both":
        layer.groups = width
    if side in ("in", "both"):
        layer.in_channels = width
    if side in ("out", "both"):
        layer.out_channels = width
    shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    layer.weight = nn.Parameter(torch.empty(shape, device="meta"))
    if layer.bias is not None:
        layer.bias = nn.Parameter(torch.empty(layer.out_channels, device="meta"))


def _resize_norm(layer: nn.BatchNorm2d, width: int) -> None:
    layer.num_features = width
    if layer.affine:
        layer.weight = nn.Parameter(torch.empty(width, device="meta"))
        layer.bias = nn.Parameter(torch.empty(width, device="meta"))
    if layer.track_running_stats:
        layer.running_mean = torch.empty(width, device="meta")
        layer.running_var = torch.empty(width, device="meta")


def _resize_linear(layer: nn.Linear, side: str, width: int) -> None:
    if side == "in":
        layer.in_features = width
    else:
        layer.out_features = width
    layer.weight = nn.Parameter(torch.empty(layer.out_features, layer.in_features, device="meta"))
    if layer.bias is not None and side == "out":
        layer.bias = nn.Parameter(torch.empty(width, device="meta"))


def layer_widths(groups: Sequence[ChannelGroup], widths: Sequence[int]) -> dict[str, int]:
    """Return the output channels of every producing layer."""
    return {name: width for group, width in zip(groups, widths, strict=True) for name in group.producers}


def group_widths(groups: Sequence[ChannelGroup], layers: Mapping[str, int]) -> tuple[int, ...]:
    """Return the groups' widths from those of their producing layers: the inverse of ``layer_widths``.

    Raises:
        BundleError: a layer is missing, layers of one group disagree, or a width is not between 1 and the dense one.
    """
    widths = []
    for group in groups:
        found = {layers.get(name, 0) for name in group.producers} or {group.width}
        width = found.pop()
        if found or not 1 <= width <= group.width or (group.frozen and width != group.width):
            raise BundleError(f"widths of {', '.join(group.producers)} do not fit the architecture")
        widths.append(width)
    return tuple(widths)


def mask_sizes(dense: Mapping[str, int], pruned: nn.Module) -> dict[str, int]:
    """Return how many weights of each layer in ``dense`` (kept weights by name) stay non-zero, where that is not all of them."""
    sizes = {}
    for name, kept in dense.items():
        weight = pruned.get_submodule(name).weight
        if isinstance(weight, torch.Tensor) and kept < weight.numel():
            sizes[name] = kept
    return sizes
