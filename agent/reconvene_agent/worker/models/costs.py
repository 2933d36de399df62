"""What a model costs on paper: parameters, operations, bytes of its file, memory to run and to train. From shapes alone.

Batch-norm counts as parameters but not in the file or at inference, where it is folded into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models.tracing import Traced, trace

FLOAT_BYTES = 4
# Of a node in the ONNX graph: its names and attributes. Measured on the built-in models; it matters to tiny ones only.
NODE_BYTES = 150
GONE_WHEN_DEPLOYED = (nn.BatchNorm2d, nn.Identity, nn.Dropout, nn.Dropout2d)
# Copies of the parameters while training with momentum: weight, gradient, momentum.
TRAINING_COPIES = 3


@dataclass(frozen=True)
class Costs:
    """``memory`` is for one inference at batch 1, ``training_memory`` for one step at the batch given; both in bytes."""

    params: int
    nonzero: int
    macs: int
    file_bytes: int
    memory: int
    training_memory: int


def count(model: nn.Module, spec: ModelSpec, batch: int, mask_sizes: Mapping[str, int]) -> Costs:
    """Return the costs of a model on the meta device whose layers in ``mask_sizes`` have so many non-zero weights."""
    traced = trace(model, spec.input)
    params = sum(parameter.numel() for parameter in model.parameters())
    masked = sum(model.get_parameter(f"{name}.weight").numel() - kept for name, kept in mask_sizes.items())
    deployed = sum(_deployed_bytes(layer) for layer in model.modules())
    nodes = sum(1 for node in traced.shapes if not isinstance(traced.layer(node), GONE_WHEN_DEPLOYED))
    return Costs(
        params=params,
        nonzero=params - masked,
        macs=macs(traced),
        file_bytes=deployed + NODE_BYTES * nodes,
        memory=deployed + _live_activations(traced),
        training_memory=TRAINING_COPIES * FLOAT_BYTES * params + batch * _saved_activations(traced),
    )


def macs(traced: Traced) -> int:
    """Return the multiply-accumulates of one inference: convolutions and linear layers, masked zeros included."""
    total = 0
    for node, shape in traced.shapes.items():
        layer = traced.layer(node)
        if isinstance(layer, nn.Conv2d):
            total += layer.weight.numel() * shape[2] * shape[3]
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel()
    return total


def _deployed_bytes(layer: nn.Module) -> int:
    if isinstance(layer, nn.Conv2d):
        return FLOAT_BYTES * (layer.weight.numel() + layer.out_channels)
    if isinstance(layer, nn.Linear):
        return FLOAT_BYTES * (layer.weight.numel() + layer.out_features)
    return 0


def _bytes(shape: tuple[int, ...]) -> int:
    size = FLOAT_BYTES
    for side in shape:
        size *= side
    return size


def _live_activations(traced: Traced) -> int:
    """Return the most bytes of tensors that are alive at once when the graph runs in order."""
    nodes = [node for node in traced.graph.graph.nodes if node in traced.shapes]
    last_use: dict[fx.Node, int] = {}
    for index, node in enumerate(traced.graph.graph.nodes):
        for argument in node.all_input_nodes:
            last_use[argument] = index
    order = {node: index for index, node in enumerate(traced.graph.graph.nodes)}
    peak = alive = 0
    ending: dict[int, int] = {}
    for node in nodes:
        alive += _bytes(traced.shapes[node])
        peak = max(peak, alive)
        end = last_use.get(node, order[node])
        ending[end] = ending.get(end, 0) + _bytes(traced.shapes[node])
        alive -= ending.pop(order[node], 0)
    return peak


def _saved_activations(traced: Traced) -> int:
    """Return the bytes per image that the backward pass needs: every tensor of the graph once."""
    return sum(_bytes(shape) for shape in traced.shapes.values())
