"""Batch-norms are of no use once training is over: they become part of the layer before them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from reconvene_agent.worker.deploy.running import Shape, run
from reconvene_agent.worker.models.layers import BATCH_NORMS


def folded(model: nn.Module, input_shape: Sequence[int] | None = None) -> fx.GraphModule:
    """Return a copy in evaluation mode with each batch-norm folded into the layer before it, where that serves it alone.

    Linear layers need ``input_shape`` (without the batch), and the model in memory: of a sequence (N, T, W) a batch-norm
    normalises T, and only a run tells a sequence. Without it, batch-norms behind linear layers stay.
    """
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    uses = Counter(_used_module(node) for node in traced.graph.nodes)
    pairs = [(node, node.args[0]) for node in traced.graph.nodes if _normalises_a_layer(node, traced)]
    after_linear = any(isinstance(_layer(source, traced), nn.Linear) for _, source in pairs)
    shapes = run(traced, torch.zeros(1, *input_shape)).shapes if after_linear and input_shape is not None else {}
    for node, source in pairs:
        if len(source.users) > 1 or uses[str(source.target)] > 1 or uses[str(node.target)] > 1:
            continue
        fused = _fused(source, _layer(node, traced), traced, shapes)
        if fused is not None:
            traced.set_submodule(str(source.target), fused)
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _used_module(node: fx.Node) -> str:
    """Return the submodule that a node calls or takes a tensor of; empty for neither."""
    target = str(node.target)
    return {"call_module": target, "get_attr": target.rpartition(".")[0]}.get(node.op, "")


def _layer(node: fx.Node, traced: fx.GraphModule) -> nn.Module:
    return traced.get_submodule(str(node.target))


def _normalises_a_layer(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether a node is a batch-norm whose numbers are fixed, right behind another layer."""
    source = node.args[0] if node.op == "call_module" and node.args else None
    if not isinstance(source, fx.Node) or source.op != "call_module":
        return False
    norm = _layer(node, traced)
    return isinstance(norm, BATCH_NORMS) and norm.track_running_stats


def _fused(source: fx.Node, norm: nn.Module, traced: fx.GraphModule, shapes: Mapping[fx.Node, Shape]) -> nn.Module | None:
    layer = _layer(source, traced)
    if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
        return fuse_conv_bn_eval(layer, norm)
    if isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Conv1d):
        return fuse_conv_bn_eval(layer, norm)
    # A batch-norm without weights of its own is one that torch's fusion does not know how to fold into a linear layer.
    if isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Linear) and norm.affine and len(shapes.get(source, ())) == 2:
        return fuse_linear_bn_eval(layer, norm)
    return None
