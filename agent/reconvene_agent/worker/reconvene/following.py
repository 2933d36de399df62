"""Follows channels through a traced graph: which unit of which layer every dimension of every tensor holds.

What is not understood is held at its width and says why, so that a narrowed model always runs.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from torch import fx, nn

from reconvene_agent.worker.models.layers import BATCH_NORMS, CONVOLUTIONS
from reconvene_agent.worker.models.tracing import Traced
from reconvene_agent.worker.reconvene import channelwise, operations
from reconvene_agent.worker.reconvene.operations import argument
from reconvene_agent.worker.reconvene.partition import Dim, MisfitError, Partition
from reconvene_agent.worker.reconvene.reshaping import PLACES

INPUT = "the model's input"
OUTPUT = "the model's output"

Dims = tuple[Dim, ...]


class Following:
    """One walk over a graph.

    Attributes:
        units: every unit found.
        sides: the dimension that each side of each layer must follow: ``in`` and ``out`` of layers with weights, ``groups``
            of grouped convolutions, ``both`` of normalisations, ``0``, ``1`` … of parameters used by themselves.
        producers: layers whose outputs are channels of their own.
        sequences: layers that normalise the entries of a sequence.
        answers: the dimensions of the model's answer, the batch apart.
    """

    def __init__(self, traced: Traced) -> None:
        self.units = Partition()
        self.sides: dict[tuple[str, str], Dim] = {}
        self.producers: list[str] = []
        self.sequences: set[str] = set()
        self.answers: Dims = ()
        self.shapes = traced.shapes
        self._traced = traced
        self.dims: dict[fx.Node, Dims] = {}
        self.sizes: dict[fx.Node, Dims] = {}
        self.parts: dict[fx.Node, list[Dims]] = {}
        self._pinned: dict[str, str] = {}
        self._walk()

    def _walk(self) -> None:
        for node in self._traced.graph.graph.nodes:
            if node.op == "output":
                self._hold_all(node.all_input_nodes, OUTPUT)
                self.answers = tuple(dim for answer in node.all_input_nodes for dim in self.dims.get(answer, ())[1:])
            else:
                self._read(node)
        for (layer, _), dim in self.sides.items():
            if layer in self._pinned:
                self.units.hold(dim, self._pinned[layer])

    def _read(self, node: fx.Node) -> None:
        """Remember what a node makes: sizes, parts or a tensor."""
        try:
            if self._try_sizes(node) or self._try_parts(node):
                return
            dims = self._visit(node)
            foreseen = tuple(self.units.size(dim) for dim in dims) == self.shapes.get(node, ())
        except (MisfitError, KeyError, IndexError, TypeError, ValueError, StopIteration):
            foreseen = False
        # A use of an operation that none of the readings below foresees is as good as an unknown operation.
        self.dims[node] = dims if foreseen else self.unknown(node)

    def _visit(self, node: fx.Node) -> Dims:
        """Return the dimensions of the tensor that a node makes."""
        if node not in self.shapes:
            return self.unknown(node)
        if node.op == "placeholder":
            return self.places(node, INPUT)
        if node.op == "get_attr":
            return self._parameter(node)
        if node.op == "call_module":
            return self._module(node, self._traced.layer(node))
        return self._operation(node)

    def _module(self, node: fx.Node, layer: nn.Module | None) -> Dims:
        name = str(node.target)
        dims = self.operand(node)
        if isinstance(layer, CONVOLUTIONS):
            return self._convolution(node, name, layer)
        if isinstance(layer, nn.Linear):
            self._connect(name, "in", dims[-1])
            return (*dims[:-1], self._produce(name, layer.out_features))
        if isinstance(layer, BATCH_NORMS):
            self._connect(name, "both", dims[1])
            return dims
        if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
            self._connect(name, "both", dims[-1])
            if len(dims) > 2:
                self.sequences.add(name)
            return dims
        if isinstance(layer, nn.GroupNorm):
            if layer.num_groups > 1:
                blocks = self.units.new(layer.num_groups)
                self.align(dims[1], tuple((unit, layer.num_channels // layer.num_groups) for unit, _ in blocks))
                self._connect(name, "groups", blocks)
            self._connect(name, "both", dims[1])
            return dims
        if isinstance(layer, nn.Flatten):
            return operations.flatten(self, node, layer.start_dim, layer.end_dim)
        if isinstance(layer, channelwise.ELEMENTWISE_MODULES):
            return dims
        if isinstance(layer, channelwise.POOLING_MODULES):
            return operations.pooled(self, node)
        if isinstance(layer, nn.Softmax) and layer.dim is not None:
            return operations.softmax(self, node, layer.dim)
        return self.unknown(node)

    def _operation(self, node: fx.Node) -> Dims:
        handler = operations.HANDLERS.get(node.target)
        return handler(self, node) if handler is not None else self.unknown(node)

    # Layers

    def _convolution(self, node: fx.Node, name: str, layer: nn.Conv1d | nn.Conv2d) -> Dims:
        dims, places = self.operand(node), operations.pooled(self, node)[2:]
        if layer.groups == 1:
            self._connect(name, "in", dims[1])
            return (dims[0], self._produce(name, layer.out_channels), *places)
        # The groups are the things that live and die; a depthwise convolution has as many as channels.
        blocks = self.units.new(layer.groups)
        self.align(dims[1], tuple((unit, layer.in_channels // layer.groups) for unit, _ in blocks))
        self._connect(name, "groups", blocks)
        self._connect(name, "in", dims[1])
        out = tuple((unit, layer.out_channels // layer.groups) for unit, _ in blocks)
        self._connect(name, "out", out)
        return (dims[0], self.sides[name, "out"], *places)

    def _produce(self, name: str, width: int) -> Dim:
        known = self.sides.get((name, "out"))
        if known is None:
            known = self.sides[name, "out"] = self.units.new(width)
            self.producers.append(name)
        return known

    def _connect(self, layer: str, side: str, dim: Dim) -> None:
        """Make a side of a layer follow a dimension; a layer that is used twice must see the same one both times."""
        known = self.sides.setdefault((layer, side), dim)
        if known is not dim:
            self.align(known, dim, f"{layer} is used on tensors of different shapes")

    def _parameter(self, node: fx.Node) -> Dims:
        """Return the dimensions of a tensor that is used by itself: a parameter of the model's own can follow, all else not."""
        target = str(node.target)
        owner, _, name = target.rpartition(".")
        module = self._traced.graph.get_submodule(owner)
        # In the graph all modules but PyTorch's own layers are plain ones.
        if type(module) is not nn.Module and type(module).__module__.startswith("torch.nn."):
            self._pinned[owner] = f"its {target} is used by itself"
            return self.places(node, self._pinned[owner])
        if not isinstance(getattr(module, name), nn.Parameter):
            return self.places(node, f"meets {target}, which is a constant")
        for side, size in enumerate(self.shapes[node]):
            self._connect(target, str(side), self.sides.get((target, str(side))) or self.units.new(size))
        return tuple(self.sides[target, str(side)] for side in range(len(self.shapes[node])))

    # Nodes that make no tensor

    def _try_sizes(self, node: fx.Node) -> bool:
        """Remember a shape, or a part of one, that the graph reads off a tensor; return whether this was one."""
        found: Dims | None = None
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source in self.dims:
            if node.target is getattr and node.args[1] == "shape":
                found = self.dims[source]
            elif node.op == "call_method" and node.target == "size":
                along = argument(node, 1, "dim", None)
                found = self.dims[source] if along is None else (self.dims[source][along],)
        elif isinstance(source, fx.Node) and source in self.sizes and node.target is operator.getitem:
            index: Any = node.args[1]
            found = self.sizes[source][index] if isinstance(index, slice) else (self.sizes[source][index],)
        if found is not None:
            self.sizes[node] = found
        return found is not None

    def _try_parts(self, node: fx.Node) -> bool:
        """Remember the equal parts that a tensor is cut into, or take one of them; return whether this was either."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source in self.parts and node.target is operator.getitem:
            index: Any = node.args[1]
            if isinstance(index, slice):
                self.parts[node] = self.parts[source][index]
            else:
                self.dims[node] = self.parts[source][index]
            return True
        if node.target not in operations.CUTTING or not isinstance(source, fx.Node) or source not in self.dims:
            return False
        dims, count = self.dims[source], argument(node, 1, "chunks", None)
        along = argument(node, 2, "dim", 0)
        size = self.shape(source)[along]
        if not isinstance(count, int) or size % count:
            return False
        part = self.units.new(size // count)
        self.align(dims[along], part * count)
        cut = tuple(part if i == along % len(dims) else dim for i, dim in enumerate(dims))
        self.parts[node] = [cut] * count
        return True

    # What all of them need

    def operand(self, node: fx.Node) -> Dims:
        return self.dims[node.all_input_nodes[0]]

    def shape(self, node: Any) -> tuple[int, ...]:
        return self.shapes[node]

    def places(self, node: fx.Node, reason: str = PLACES) -> Dims:
        return tuple(self.units.new(size, reason) for size in self.shapes.get(node, ()))

    def align(self, one: Dim, other: Dim, reason: str = "meets another dimension that cannot be divided alike") -> None:
        try:
            self.units.align(one, other)
        except MisfitError:
            self.units.hold(one, reason)
            self.units.hold(other, reason)

    def _hold_all(self, nodes: Iterable[fx.Node], reason: str) -> None:
        for node in nodes:
            for dims in (self.dims.get(node, ()), self.sizes.get(node, ()), *self.parts.get(node, [])):
                for dim in dims:
                    self.units.hold(dim, reason)

    def unknown(self, node: fx.Node) -> Dims:
        reason = f"passes through {node.op} {getattr(node.target, '__name__', node.target)}, which is not understood"
        if node.op == "call_module":
            self._pinned[str(node.target)] = reason
        self._hold_all(node.all_input_nodes, reason)
        return self.places(node, reason)
