"""A model's graph with the shape of every tensor in it, traced with torch.fx; the one place that runs the tracer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from reconvene_agent.core.errors import BundleError


@dataclass(frozen=True)
class Traced:
    """A model and its graph.

    Attributes:
        graph: the traced module; its submodules are those of the model.
        shapes: of each node's output at batch 1, where that is a tensor.
    """

    graph: fx.GraphModule
    shapes: dict[fx.Node, tuple[int, ...]]

    def layer(self, node: fx.Node) -> nn.Module | None:
        """Return the submodule that a node calls, or None when it calls none."""
        return self.graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _blank(*shape: int) -> Tensor:
    """Return a tensor of any shape that takes the memory of one number."""
    return torch.zeros(()).expand(shape)


class _Shapes(fx.Interpreter):
    """Runs a graph for its shapes alone: layers with weights answer by formula, all others run on blank tensors.

    PyTorch's own meta kernels would do as well, but they import a computer-algebra system: half a second and 30 MB.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except RuntimeError:
            # What works in place cannot write to a blank tensor, whose entries are all one.
            for node in n.all_input_nodes:
                if isinstance(value := self.env[node], Tensor):
                    self.env[node] = value.clone(memory_format=torch.contiguous_format)
            result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return _blank(*value.shape) if isinstance(value, Tensor) and value.is_meta else value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        layer = self.fetch_attr(target)
        if not any(tensor.is_meta for tensor in (*layer.parameters(), *layer.buffers())):
            return super().call_module(target, args, kwargs)
        shape = tuple(args[0].shape)
        channels = shape[1] if len(shape) > 1 else 0
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.padding_mode == "zeros":
            if channels == layer.in_channels and len(shape) == len(layer.weight.shape):
                return _blank(shape[0], layer.out_channels, *_convolved(layer, shape[2:]))
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if channels == layer.num_features and len(shape) in ((2, 3) if isinstance(layer, nn.BatchNorm1d) else (4,)):
                return _blank(*shape)
        elif isinstance(layer, nn.LayerNorm):
            if shape[-len(layer.normalized_shape) :] == tuple(layer.normalized_shape):
                return _blank(*shape)
        elif isinstance(layer, nn.Linear) and shape[-1] == layer.in_features:
            return _blank(*shape[:-1], layer.out_features)
        return _blank(*layer(*(a.to("meta") if isinstance(a, Tensor) else a for a in args), **kwargs).shape)


def _convolved(layer: nn.Conv1d | nn.Conv2d, image: tuple[int, ...]) -> tuple[int, ...]:
    """Return the places of a convolution's output (the formula in torch.nn.Conv2d's documentation)."""
    if layer.padding == "same":
        return image
    padding = (0,) * len(image) if isinstance(layer.padding, str) else layer.padding
    numbers = zip(image, padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    sides = tuple((side + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for side, pad, gap, kernel, step in numbers)
    if min(sides) < 1:
        raise ValueError(f"an input of {'×'.join(map(str, image))} is too small for a kernel of {layer.kernel_size}")
    return sides


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Traced:
    """Trace a model that lies on the meta device; its layers are not computed and no weight is allocated.

    Raises:
        BundleError: torch.fx cannot follow the model, or it does not accept such an input.
    """
    try:
        graph = fx.symbolic_trace(model)
        interpreter = _Shapes(graph)
        with torch.no_grad():
            interpreter.run(_blank(1, *input_shape))
    except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError) as error:
        size = "×".join(map(str, input_shape))
        reason = str(error).partition("\n")[0]
        raise BundleError(f"the model cannot be traced with an input of {size}: {reason}") from error
    return Traced(graph, interpreter.shapes)
