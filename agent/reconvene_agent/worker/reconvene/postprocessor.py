"""Model Post-Processor: everything around the narrowed layers is made to fit, and sensitive layers get their masks.

Eccles et al. 2024 (arXiv 2404.16877). Works on the meta device: only the small model is ever given memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from reconvene_agent.worker.models.layers import BATCH_NORMS, CONVOLUTIONS
from reconvene_agent.worker.reconvene.groups import Structure


def resize(model: nn.Module, structure: Structure, widths: Sequence[int]) -> nn.Module:
    """Give every layer of a model on the meta device the size that the groups' widths ask for; changes the model itself."""
    sizes: defaultdict[str, dict[str, int]] = defaultdict(dict)
    dense = structure.widths
    for side in structure.sides:
        if side.size(widths) != side.size(dense):
            sizes[side.layer][side.side] = side.size(widths)
    parameters = dict(model.named_parameters())
    for name, changed in sizes.items():
        if name in parameters:
            _resize_parameter(model, name, changed)
            continue
        layer = model.get_submodule(name)
        if isinstance(layer, CONVOLUTIONS):
            _resize_convolution(layer, changed)
        elif isinstance(layer, nn.Linear):
            _resize_linear(layer, changed)
        elif isinstance(layer, BATCH_NORMS):
            _resize_norm(layer, changed["both"])
        elif isinstance(layer, nn.LayerNorm):
            layer.normalized_shape = (changed["both"],)
            _reset(layer, (changed["both"],))
        elif isinstance(layer, nn.GroupNorm):
            layer.num_groups = changed.get("groups", layer.num_groups)
            layer.num_channels = changed.get("both", layer.num_channels)
            _reset(layer, (layer.num_channels,))
    return model


def _resize_convolution(layer: nn.Conv1d | nn.Conv2d, changed: Mapping[str, int]) -> None:
    layer.groups = changed.get("groups", layer.groups)
    layer.in_channels = changed.get("in", layer.in_channels)
    layer.out_channels = changed.get("out", layer.out_channels)
    _reset(layer, (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size), bias=layer.out_channels)


def _resize_linear(layer: nn.Linear, changed: Mapping[str, int]) -> None:
    layer.in_features = changed.get("in", layer.in_features)
    layer.out_features = changed.get("out", layer.out_features)
    _reset(layer, (layer.out_features, layer.in_features), bias=layer.out_features)


def _resize_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, width: int) -> None:
    layer.num_features = width
    _reset(layer, (width,))
    if layer.track_running_stats:
        layer.running_mean = torch.empty(width, device="meta")
        layer.running_var = torch.empty(width, device="meta")


def _reset(layer: nn.Module, weight: tuple[int, ...], bias: int | None = None) -> None:
    """Give a layer parameters of another size; one that has no weight or no bias keeps none."""
    for name, shape in (("weight", weight), ("bias", weight if bias is None else (bias,))):
        if getattr(layer, name) is not None:
            setattr(layer, name, nn.Parameter(torch.empty(shape, device="meta")))


def _resize_parameter(model: nn.Module, name: str, changed: Mapping[str, int]) -> None:
    owner, _, own = name.rpartition(".")
    shape = list(model.get_parameter(name).shape)
    for dimension, size in changed.items():
        shape[int(dimension)] = size
    setattr(model.get_submodule(owner), own, nn.Parameter(torch.empty(shape, device="meta")))


def mask_sizes(dense: Mapping[str, int], pruned: nn.Module) -> dict[str, int]:
    """Return how many weights of each layer in ``dense`` (kept weights by name) stay non-zero, where that is not all of them.

    At least as many as the layer has filters: a criterion may give a layer none, and nothing would pass through it any more.
    """
    sizes = {}
    for name, kept in dense.items():
        weight = pruned.get_parameter(f"{name}.weight")
        left = max(kept, len(weight))
        if left < weight.numel():
            sizes[name] = left
    return sizes
