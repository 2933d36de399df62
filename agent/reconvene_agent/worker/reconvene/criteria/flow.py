"""The flow through a net whose weights are all magnitudes: forward and backward, one layer's weights in memory at a time.

An ordinary backward pass holds every weight of the model. Here each node of the graph is differentiated by itself, and a
layer's weights are read when its turn comes, and let go.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from reconvene_agent.worker.models.layers import CONVOLUTIONS, NORMS, WEIGHTED
from reconvene_agent.worker.models.tracing import Traced
from reconvene_agent.worker.models.weights import WeightSource
from reconvene_agent.worker.reconvene.channelwise import ELEMENTWISE, ELEMENTWISE_MODULES
from reconvene_agent.worker.reconvene.criteria.magnitudes import Magnitudes


class Flow:
    """One net; ``left`` knows the magnitudes of its prunable layers' weights as they are now."""

    def __init__(self, traced: Traced, left: Magnitudes, weights: WeightSource, dtype: torch.dtype) -> None:
        self._traced = traced
        self._left = left
        self._weights = weights
        self._dtype = dtype
        self._values: dict[fx.Node, Any] = {}
        # Of each use of a prunable layer: the layer, what went in, and the gradient of what came out.
        self._passed: dict[str, list[tuple[nn.Module, Tensor, Tensor]]] = {}

    def run(self) -> bool:
        """Pass ones through the net and gradients back; return whether the sum R of the outputs is a positive number.

        Without one there are no scores.
        """
        self._passed = {name: [] for name in self._left.names}
        total = self._forward()
        if not 0.0 < total < math.inf:
            return False
        self._backward(total)
        self._values.clear()
        return True

    def scores(self, name: str) -> Tensor:
        """Return |w · ∂R/∂w| / R for the weights of a layer, in their shape, as of the last run."""
        weight = self._left.read(name)
        gradient: Tensor | None = None
        for layer, value, upstream in self._passed[name]:
            variable = weight.detach().requires_grad_()
            with torch.enable_grad():
                out = _apply(layer, value, variable)
            (found,) = torch.autograd.grad(out, variable, upstream)
            gradient = found if gradient is None else gradient.add_(found)
        return torch.zeros_like(weight) if gradient is None else gradient.mul_(weight)

    def _forward(self) -> float:
        total = 0.0
        with torch.no_grad():
            for node in self._traced.graph.graph.nodes:
                if node.op == "placeholder":
                    self._values[node] = torch.ones(self._traced.shapes[node], dtype=self._dtype)
                elif node.op == "output":
                    total = sum(float(self._values[answer].sum()) for answer in node.all_input_nodes)
                else:
                    self._values[node] = self._call(node, self._values)
        return total

    def _backward(self, total: float) -> None:
        gradients: dict[fx.Node, Any] = {}
        for node in reversed(self._traced.graph.graph.nodes):
            if node.op == "output":
                for answer in node.all_input_nodes:
                    gradients[answer] = torch.full_like(self._values[answer], 1.0 / total)
            elif node in gradients and node.all_input_nodes:
                self._differentiate(node, gradients.pop(node), gradients)

    def _differentiate(self, node: fx.Node, upstream: Any, gradients: dict[fx.Node, Any]) -> None:
        """Add to ``gradients`` what a node passes back to its inputs; a tensor cut into parts has a list of them."""
        values = dict(self._values)
        leaves: list[tuple[fx.Node, int | None, Tensor]] = []
        for source in node.all_input_nodes:
            values[source] = value = _as_variables(self._values[source])
            if isinstance(value, tuple):
                leaves.extend((source, number, part) for number, part in enumerate(value) if _is_variable(part))
            elif _is_variable(value):
                leaves.append((source, None, value))
        with torch.enable_grad():
            out = self._call(node, values)
        pairs = zip(out, upstream, strict=True) if isinstance(upstream, list) else ((out, upstream),)
        passing = [(part, gradient) for part, gradient in pairs if _is_variable(part)]
        if not passing:
            return
        if node.op == "call_module" and str(node.target) in self._left.names:
            layer = self._traced.layer(node)
            assert layer is not None
            self._passed[str(node.target)].append((layer, self._values[node.all_input_nodes[0]], upstream))
        outs, gradients_of_outs = zip(*passing, strict=True)
        passed = torch.autograd.grad(outs, [leaf for _, _, leaf in leaves], gradients_of_outs, allow_unused=True)
        for (source, number, _), gradient in zip(leaves, passed, strict=True):
            if gradient is not None:
                gradients[source] = self._added(gradients.get(source), source, number, gradient)

    def _added(self, known: Any, source: fx.Node, number: int | None, gradient: Tensor) -> Any:
        """Return what is known of a node's gradient with one more: of the whole, or of the part with that number."""
        if number is None:
            return gradient if known is None else known + gradient
        parts = [torch.zeros_like(part) for part in self._values[source]] if known is None else known
        parts[number] = parts[number] + gradient
        return parts

    def _call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        if node.op == "get_attr":
            return self._weights.parameter(str(node.target), self._traced.shapes[node]).abs().to(self._dtype)
        args: Any = fx.node.map_arg(node.args, values.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, values.__getitem__)
        if node.op in ("call_function", "call_method"):
            return self._call_function(node, args, kwargs)
        layer = self._traced.layer(node)
        assert layer is not None
        name = str(node.target)
        if isinstance(layer, WEIGHTED):
            known = name in self._left.names
            weight = self._left.read(name) if known else self._magnitudes(f"{name}.weight", tuple(layer.weight.shape))
            return _apply(layer, args[0], weight)
        if isinstance(layer, nn.Softmax):
            return _evenly(args[0], layer.dim)
        if isinstance(layer, _PASSED) or any(True for _ in layer.parameters()):
            return args[0]
        return layer(*args, **kwargs)

    def _call_function(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        # Numbers, such as the sides of a shape, are computed as they stand.
        flows = any(isinstance(value, Tensor) for value in (*args, *kwargs.values()))
        if flows and node.target in ELEMENTWISE:
            return args[0] if args else kwargs["input"]
        if flows and node.target in _REPLACED:
            return _REPLACED[node.target](*args, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        name = str(node.target)
        # What a method changes in its place is what another node still needs.
        owner = args[0].clone() if name.endswith("_") and isinstance(args[0], Tensor) else args[0]
        return getattr(owner, name)(*args[1:], **kwargs)

    def _magnitudes(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self._weights.weight(name, shape).abs().to(self._dtype)


# Normalisations are the identity at initialisation but for the statistics, which the paper leaves out. Activations are the
# identity on a flow, which is never negative, or else would stop it: those that saturate have no slope where it is large.
_PASSED = (*NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, *ELEMENTWISE_MODULES)


def _as_variables(value: Any) -> Any:
    """Return a value, or each of its parts, as a variable of its own that a gradient can be asked for."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return tuple(_as_variables(part) for part in value)
    return value


def _is_variable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _apply(layer: nn.Module, value: Tensor, weight: Tensor) -> Tensor:
    """Apply a layer without its bias, which is zero at initialisation."""
    if isinstance(layer, nn.Linear):
        return functional.linear(value, weight)
    assert isinstance(layer, CONVOLUTIONS)
    convolve: Callable[..., Tensor] = functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d
    return convolve(value, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _evenly(value: Tensor, dim: int | None = None, **_: Any) -> Tensor:
    """Attend to all tokens alike, as softmax does where they are: a net of ones has no favourites.

    What flows in has a share in it all the same: without one, nothing would flow to query and key, and both be cut away.
    """
    flow = torch.where(value > 0, value, 1.0)
    return flow / flow.detach() / value.shape[-1 if dim is None else dim]


def _attend(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Let the flow through query, key and value alike, and evenly through all tokens; the paper knows no attention.

    Through a softmax of equal scores nothing would flow to query and key at all, and both would be cut away.
    """
    flow = value + query + key if query.shape == key.shape == value.shape else value
    return flow.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])


def _unchanged(value: Tensor, *_: Any, **__: Any) -> Tensor:
    return value


_REPLACED: dict[Any, Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: _attend,
    functional.softmax: _evenly,
    torch.softmax: _evenly,
    "softmax": _evenly,
    functional.layer_norm: _unchanged,
    functional.group_norm: _unchanged,
    # A flow has no signs.
    operator.sub: operator.add,
    torch.sub: torch.add,
    "sub": torch.add,
}
