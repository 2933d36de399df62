"""Channel groups: which dimensions of which layers must have the same width, read off the traced graph.

Layers whose outputs are added share their channels; batch-norm and depthwise convolutions follow their input; a flattened
image gives a linear layer several inputs per channel. What is not understood is left at its width and says why.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from torch import fx, nn

from reconvene_agent.worker.models.tracing import Traced
from reconvene_agent.worker.reconvene.channelwise import (
    ADDITIONS,
    CHANNELWISE_FUNCTIONS,
    CHANNELWISE_MODULES,
    FLATTENINGS,
    MEANS,
)

Side = Literal["out", "in", "both"]


@dataclass(frozen=True)
class Slot:
    """One dimension of one layer that belongs to a group.

    Attributes:
        layer: the submodule's name.
        side: its outputs, its inputs, or ``both`` where they are the same channels (batch-norm, depthwise).
        times: entries of that dimension per channel of the group.
    """

    layer: str
    side: Side
    times: int = 1


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together.

    Attributes:
        width: how many there are.
        producers: the layers that compute them.
        slots: every dimension that must follow.
        frozen: why the width may not change; empty when it may.
    """

    width: int
    producers: tuple[str, ...]
    slots: tuple[Slot, ...]
    frozen: str


@dataclass(frozen=True)
class _Channels:
    """Channels of one tensor, at dimension 1: a provisional group, and how many entries each channel has."""

    group: int
    times: int = 1


class _Grouping:
    """Walks a graph once and merges provisional groups (union-find) as it learns what belongs together."""

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._parent: list[int] = []
        self._width: list[int] = []
        self._frozen: dict[int, str] = {}
        self._slots: dict[tuple[str, Side], tuple[Slot, int]] = {}
        self._pinned: dict[str, str] = {}
        self._channels: dict[fx.Node, _Channels] = {}

    def run(self) -> tuple[ChannelGroup, ...]:
        for node in self._traced.graph.graph.nodes:
            if node.op == "output":
                for argument in node.all_input_nodes:
                    self._freeze(argument, "the model's output")
            else:
                self._visit(node)
        return self._collect()

    def _visit(self, node: fx.Node) -> None:
        if node not in self._traced.shapes:
            self._unknown(node)
        elif node.op == "placeholder":
            self._channels[node] = self._new(node, "the model's input")
        elif node.op == "call_module":
            self._module(node, self._traced.layer(node))
        elif node.op in ("call_function", "call_method"):
            self._operation(node)
        else:
            self._unknown(node)

    def _module(self, node: fx.Node, layer: nn.Module | None) -> None:
        if isinstance(layer, nn.Conv2d):
            self._convolution(node, layer)
        elif isinstance(layer, nn.Linear):
            self._linear(node)
        elif isinstance(layer, nn.BatchNorm2d):
            self._follow(node, Slot(str(node.target), "both"))
        elif isinstance(layer, nn.Flatten):
            self._flatten(node, layer.start_dim, layer.end_dim)
        elif isinstance(layer, CHANNELWISE_MODULES):
            self._follow(node)
        else:
            self._unknown(node)

    def _operation(self, node: fx.Node) -> None:
        if node.target in CHANNELWISE_FUNCTIONS:
            self._follow(node)
        elif node.target in ADDITIONS:
            self._join(node)
        elif node.target in MEANS:
            self._mean(node)
        elif node.target in FLATTENINGS:
            self._flatten(node, _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))
        else:
            self._unknown(node)

    def _convolution(self, node: fx.Node, layer: nn.Conv2d) -> None:
        name, source = str(node.target), self._source(node)
        if layer.groups == 1:
            self._consume(source, Slot(name, "in"))
            self._produce(node, name)
        elif layer.groups == layer.in_channels == layer.out_channels:
            self._follow(node, Slot(name, "both"))
        else:
            reason = f"{name} is a grouped convolution"
            self._hold(source.group, reason)
            self._produce(node, name)
            self._freeze(node, reason)

    def _linear(self, node: fx.Node) -> None:
        name, source = str(node.target), self._source(node)
        if len(self._traced.shapes[node]) != 2:
            self._unknown(node)
            return
        self._consume(source, Slot(name, "in", source.times))
        self._produce(node, name)

    def _produce(self, node: fx.Node, name: str) -> None:
        self._channels[node] = self._new(node)
        self._consume(self._channels[node], Slot(name, "out"))

    def _consume(self, source: _Channels, slot: Slot) -> None:
        known = self._slots.setdefault((slot.layer, slot.side), (slot, source.group))
        if known[0] == slot:
            self._union(known[1], source.group)
            return
        for group in (known[1], source.group):
            self._hold(group, f"{slot.layer} is used on tensors of different shapes")

    def _follow(self, node: fx.Node, slot: Slot | None = None) -> None:
        source = self._source(node)
        if slot is not None:
            self._consume(source, slot)
            if source.times != 1:
                self._hold(source.group, f"{slot.layer} sees flattened channels")
        self._channels[node] = source

    def _join(self, node: fx.Node) -> None:
        operands = node.all_input_nodes
        result = self._traced.shapes[node]
        shapes = [self._traced.shapes.get(operand, ()) for operand in operands]
        # Of the same rank too, or dimension 1 of one would meet another dimension of the other.
        if len(result) < 2 or any(len(shape) != len(result) or shape[1] != result[1] for shape in shapes):
            self._unknown(node)
            return
        first = self._channels[operands[0]]
        for operand in operands[1:]:
            other = self._channels[operand]
            if other.times != first.times:
                self._unknown(node)
                return
            self._union(first.group, other.group)
        self._channels[node] = first

    def _mean(self, node: fx.Node) -> None:
        dims = _argument(node, 1, "dim", None)
        rank = len(self._traced.shapes[node.all_input_nodes[0]])
        if isinstance(dims, int):
            dims = (dims,)
        if isinstance(dims, (tuple, list)) and all(isinstance(d, int) and d % rank > 1 for d in dims):
            self._follow(node)
        else:
            self._unknown(node)

    def _flatten(self, node: fx.Node, start: Any, end: Any) -> None:
        shape = self._traced.shapes[node.all_input_nodes[0]]
        if start != 1 or end not in (-1, len(shape) - 1):
            self._unknown(node)
            return
        source = self._source(node)
        self._channels[node] = _Channels(source.group, source.times * math.prod(shape[2:]))

    def _unknown(self, node: fx.Node) -> None:
        reason = f"passes through {node.op} {getattr(node.target, '__name__', node.target)}, which is not understood"
        if node.op == "call_module":
            self._pinned[str(node.target)] = reason
        elif node.op == "get_attr":
            self._pinned[str(node.target).rpartition(".")[0]] = f"its {node.target} is used by itself"
        for argument in node.all_input_nodes:
            self._freeze(argument, reason)
        self._channels[node] = self._new(node, reason)

    def _source(self, node: fx.Node) -> _Channels:
        return self._channels[node.all_input_nodes[0]]

    def _new(self, node: fx.Node, frozen: str = "") -> _Channels:
        shape = self._traced.shapes.get(node, ())
        group = len(self._parent)
        self._parent.append(group)
        self._width.append(shape[1] if len(shape) > 1 else 0)
        if frozen:
            self._frozen[group] = frozen
        return _Channels(group)

    def _freeze(self, node: fx.Node, reason: str) -> None:
        self._hold(self._channels[node].group, reason)

    def _hold(self, group: int, reason: str) -> None:
        self._frozen.setdefault(self._root(group), reason)

    def _root(self, group: int) -> int:
        while self._parent[group] != group:
            self._parent[group] = self._parent[self._parent[group]]
            group = self._parent[group]
        return group

    def _union(self, one: int, other: int) -> None:
        one, other = sorted((self._root(one), self._root(other)))
        if one == other:
            return
        self._parent[other] = one
        if other in self._frozen:
            self._frozen.setdefault(one, self._frozen.pop(other))

    def _collect(self) -> tuple[ChannelGroup, ...]:
        slots: defaultdict[int, list[Slot]] = defaultdict(list)
        for slot, group in self._slots.values():
            slots[self._root(group)].append(slot)
            if slot.layer in self._pinned:
                self._hold(group, self._pinned[slot.layer])
        frozen = {self._root(group): reason for group, reason in self._frozen.items()}
        return tuple(
            ChannelGroup(
                width=self._width[root],
                producers=tuple(slot.layer for slot in members if slot.side == "out"),
                slots=tuple(members),
                frozen=frozen.get(root, ""),
            )
            for root, members in sorted(slots.items())
        )


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Return an argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def find_groups(traced: Traced) -> tuple[ChannelGroup, ...]:
    """Return the channel groups of a traced model, in the order of its graph."""
    return _Grouping(traced).run()
