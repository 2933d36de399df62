"""What a model costs on paper: parameters, operations, bytes of its file, memory to run and to train. From shapes alone.

Batch-norm counts as parameters but not in the file or at inference, where it is folded into the layer before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models.layers import BATCH_NORMS, CONVOLUTIONS, PRODUCTS
from reconvene_agent.worker.models.segments import FLOAT_BYTES, find_segments, saved_activations
from reconvene_agent.worker.models.tracing import Traced, trace

# Of a node in the ONNX graph: its names and attributes. Measured on the built-in models; it matters to tiny ones only.
NODE_BYTES = 150
GONE_WHEN_DEPLOYED = (*BATCH_NORMS, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
# What ONNX Runtime takes for any model at all, and the copies of a layer's weights that it has when a file has just been loaded,
# the file itself among them; kernels of images are kept reordered as well. Measured on the built-in models with ONNX Runtime
# 1.32 on x86-64: they take 0.85 to 1.3 times what is computed by this.
RUNTIME_BYTES = 11 << 18
LOADED_COPIES = 1.3
LOADED_COPIES_OF_KERNELS = 2.6
# Copies of the parameters while training with momentum: weight, gradient, momentum, and the best so far.
TRAINING_COPIES = 4


@dataclass(frozen=True)
class TrainingCosts:
    """Bytes that training takes.

    Attributes:
        weights: of one copy of the parameters.
        masks: of the masks of all layers that have one.
        saved: activations of each input that the backward pass needs: every tensor of the graph once.
        recomputed: the same where they are computed anew, segment by segment.
    """

    weights: int
    masks: int
    saved: int
    recomputed: int

    def memory(self, inputs: int, recompute: bool = False, average: bool = False) -> int:
        """Return what training takes with so many inputs in memory at a time, ``average`` of the weights kept or not."""
        copies = TRAINING_COPIES + average
        return copies * self.weights + self.masks + inputs * (self.recomputed if recompute else self.saved)


@dataclass(frozen=True)
class Costs:
    """``memory`` is for loading the file and one inference at batch 1, in bytes."""

    params: int
    nonzero: int
    macs: int
    file_bytes: int
    memory: int
    training: TrainingCosts


def count(model: nn.Module, spec: ModelSpec, mask_sizes: Mapping[str, int]) -> Costs:
    """Return the costs of a model on the meta device whose layers in ``mask_sizes`` have so many non-zero weights."""
    traced = trace(model, spec.input)
    params = sum(parameter.numel() for parameter in model.parameters())
    with_masks = sum(model.get_parameter(f"{name}.weight").numel() for name in mask_sizes)
    deployed = [(layer, _deployed_bytes(layer)) for layer in model.modules()]
    loaded = sum(size * (LOADED_COPIES_OF_KERNELS if isinstance(layer, nn.Conv2d) else LOADED_COPIES) for layer, size in deployed)
    nodes = sum(1 for node in traced.shapes if not isinstance(traced.layer(node), GONE_WHEN_DEPLOYED))
    return Costs(
        params=params,
        nonzero=params - with_masks + sum(mask_sizes.values()),
        macs=macs(traced),
        file_bytes=sum(size for _, size in deployed) + NODE_BYTES * nodes,
        memory=RUNTIME_BYTES + round(loaded) + _live_activations(traced),
        training=TrainingCosts(
            weights=FLOAT_BYTES * params,
            masks=with_masks,
            saved=saved_activations(traced),
            recomputed=find_segments(traced).saved,
        ),
    )


def macs(traced: Traced) -> int:
    """Return the multiply-accumulates of one inference: convolutions, linear layers, attention; masked zeros included."""
    total = 0
    for node, shape in traced.shapes.items():
        layer = traced.layer(node)
        if isinstance(layer, CONVOLUTIONS):
            total += layer.weight.numel() * math.prod(shape[2:])
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel() * math.prod(shape[:-1])
        elif node.target is functional.scaled_dot_product_attention:
            # Every query meets every key over a head's width, and what comes of it weighs the values.
            total += math.prod(_scores(traced, node)) * (_shape(traced, node, 0, "query")[-1] + shape[-1])
        elif node.op in ("call_function", "call_method") and node.target in PRODUCTS:
            total += math.prod(shape) * _shape(traced, node, 0, "input")[-1]
    return total


def _shape(traced: Traced, node: fx.Node, position: int, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor that a call is given, by position or by name."""
    argument: Any = node.args[position] if len(node.args) > position else node.kwargs[name]
    return traced.shapes[argument]


def _scores(traced: Traced, node: fx.Node) -> tuple[int, ...]:
    """Return the shape of what attention makes of queries and keys: one number for each pair of tokens in each head."""
    return (*_shape(traced, node, 0, "query")[:-1], _shape(traced, node, 1, "key")[-2])


def _deployed_bytes(layer: nn.Module) -> int:
    """Return the bytes of a layer's own tensors in the file; a folded batch-norm leaves its layer a bias."""
    if isinstance(layer, BATCH_NORMS):
        return 0
    if isinstance(layer, CONVOLUTIONS):
        return FLOAT_BYTES * (layer.weight.numel() + layer.out_channels)
    if isinstance(layer, nn.Linear):
        return FLOAT_BYTES * (layer.weight.numel() + layer.out_features)
    return FLOAT_BYTES * sum(parameter.numel() for parameter in layer.parameters(recurse=False))


def _bytes(shape: tuple[int, ...]) -> int:
    return FLOAT_BYTES * math.prod(shape)


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
        # Deployed, attention is a chain of plain operations: the scores become weights beside themselves.
        attention = node.target is functional.scaled_dot_product_attention
        peak = max(peak, alive + (2 * _bytes(_scores(traced, node)) if attention else 0))
        end = last_use.get(node, order[node])
        ending[end] = ending.get(end, 0) + _bytes(traced.shapes[node])
        alive -= ending.pop(order[node], 0)
    return peak
