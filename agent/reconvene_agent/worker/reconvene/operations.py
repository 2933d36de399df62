"""What each operation does to the dimensions of its tensors: one function for each kind, and the table of them.

A function returns the dimensions of the result; what it cannot follow it leaves to ``walk.unknown``, which holds them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.nn import functional

from reconvene_agent.worker.models.layers import PRODUCTS
from reconvene_agent.worker.reconvene import channelwise
from reconvene_agent.worker.reconvene.partition import Dim
from reconvene_agent.worker.reconvene.reshaping import FREE, PLACES, Target, fold

if TYPE_CHECKING:
    from reconvene_agent.worker.reconvene.following import Dims, Following


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Return an argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def unchanged(walk: Following, node: fx.Node) -> Dims:
    return walk.operand(node) if len(node.all_input_nodes) == 1 else walk.unknown(node)


def pooled(walk: Following, node: fx.Node) -> Dims:
    """Return the dimensions of a tensor whose places are reckoned with one another, in a pooling or a convolution."""
    dims, places = walk.operand(node), walk.places(node)
    for dim in (*dims[2:], *(size for other in node.all_input_nodes[1:] for size in walk.sizes[other])):
        walk.units.hold(dim, "is taken for the places of an image or a window")
    return (*dims[:2], *places[2:])


def softmax(walk: Following, node: fx.Node, dim: int) -> Dims:
    dims = walk.operand(node)
    walk.units.hold(dims[dim], "is normalised by softmax")
    return dims


def joined(walk: Following, node: fx.Node) -> Dims:
    """Pair the dimensions of two tensors from the last one on; one of a single entry is repeated."""
    operands = [argument for argument in node.args if isinstance(argument, fx.Node)]
    if node.kwargs or any(operand not in walk.dims for operand in operands):
        return walk.unknown(node)
    shape = walk.shapes[node]
    result: list[Dim] = []
    for back in range(1, len(shape) + 1):
        found = [walk.dims[o][-back] for o in operands if len(walk.dims[o]) >= back and walk.shape(o)[-back] == shape[-back]]
        for other in found[1:]:
            walk.align(found[0], other)
        result.append(found[0])
    return tuple(reversed(result))


def reduced(walk: Following, node: fx.Node) -> Dims:
    dims = walk.operand(node)
    over = argument(node, 1, "dim", None)
    keep = argument(node, 2, "keepdim", False)
    if over is None or not isinstance(keep, bool):
        return walk.unknown(node)
    gone = {d % len(dims) for d in ((over,) if isinstance(over, int) else over)}
    return tuple(walk.units.new(1, PLACES) if i in gone else dim for i, dim in enumerate(dims) if keep or i not in gone)


def concatenated(walk: Following, node: fx.Node) -> Dims:
    tensors = [walk.dims[tensor] for tensor in argument(node, 0, "tensors", ())]
    along = argument(node, 1, "dim", 0) % len(tensors[0])
    for other in tensors[1:]:
        for i, (one, two) in enumerate(zip(tensors[0], other, strict=True)):
            if i != along:
                walk.align(one, two)
    joined = tuple(segment for dims in tensors for segment in dims[along])
    return tuple(joined if i == along else dim for i, dim in enumerate(tensors[0]))


def product(walk: Following, node: fx.Node) -> Dims:
    one, other = (walk.dims[operand] for operand in node.args)  # type: ignore[index]
    if min(len(one), len(other)) < 2 or len(one) != len(other):
        return walk.unknown(node)
    walk.align(one[-1], other[-2])
    for left, right in zip(one[:-2], other[:-2], strict=True):
        walk.align(left, right)
    return (*one[:-1], other[-1])


def attention(walk: Following, node: fx.Node) -> Dims:
    query, key, value = (walk.dims[operand] for operand in node.args[:3])  # type: ignore[index]
    if len(node.args) > 3 or argument(node, 3, "attn_mask", None) is not None or not len(query) == len(key) == len(value):
        return walk.unknown(node)
    for one, other in ((query[-1], key[-1]), (key[-2], value[-2])):
        walk.align(one, other)
    for rows in zip(query[:-2], key[:-2], value[:-2], strict=True):
        walk.align(rows[0], rows[1])
        walk.align(rows[0], rows[2])
    return (*query[:-1], value[-1])


def flatten(walk: Following, node: fx.Node, start: Any, end: Any) -> Dims:
    before, after = walk.shape(node.all_input_nodes[0]), walk.shapes[node]
    start, end = start % len(before), end % len(before)
    targets: list[Target] = [*walk.operand(node)[:start], FREE, *walk.operand(node)[end + 1 :]]
    return fold(walk.units, walk.operand(node), before, after, targets)


def _sizes(node: fx.Node) -> Sequence[Any]:
    """Return the sizes that a call gives one by one, or as one sequence."""
    said: Sequence[Any] = node.args[1:]
    return said[0] if len(said) == 1 and isinstance(said[0], (tuple, list)) else said


def reshape(walk: Following, node: fx.Node) -> Dims:
    said = _sizes(node)
    if node.kwargs or not said or not all(isinstance(size, (int, fx.Node)) for size in said):
        return walk.unknown(node)
    targets = [_target(walk, size) for size in said]
    before, after = walk.shape(node.args[0]), walk.shapes[node]
    return fold(walk.units, walk.operand(node), before, after, targets)


def _target(walk: Following, size: Any) -> Target:
    """Return how a reshape says one size."""
    if isinstance(size, fx.Node):
        dims = walk.sizes.get(size)
        return dims[0] if dims is not None and len(dims) == 1 else None
    return FREE if size == -1 else None


def permute(walk: Following, node: fx.Node) -> Dims:
    order: Any = node.args[1:] if len(node.args) > 2 else argument(node, 1, "dims", ())
    dims = walk.operand(node)
    return tuple(dims[i] for i in order)


def transpose(walk: Following, node: fx.Node) -> Dims:
    dims = list(walk.operand(node))
    one, other = argument(node, 1, "dim0", None), argument(node, 2, "dim1", None)
    dims[one], dims[other] = dims[other], dims[one]
    return tuple(dims)


def unsqueeze(walk: Following, node: fx.Node) -> Dims:
    dims = list(walk.operand(node))
    dims.insert(argument(node, 1, "dim", None) % (len(dims) + 1), walk.units.new(1, PLACES))
    return tuple(dims)


def squeeze(walk: Following, node: fx.Node) -> Dims:
    dims, along = walk.operand(node), argument(node, 1, "dim", None)
    if not isinstance(along, int) or len(dims) == len(walk.shapes[node]):
        return walk.unknown(node)
    walk.units.hold(dims[along], PLACES)
    return tuple(dim for i, dim in enumerate(dims) if i != along % len(dims))


def expand(walk: Following, node: fx.Node) -> Dims:
    dims, shape, said = walk.operand(node), walk.shapes[node], _sizes(node)
    if len(said) != len(shape):
        return walk.unknown(node)
    extra = len(shape) - len(dims)
    places = walk.places(node)
    same = [i >= extra and walk.shape(node.args[0])[i - extra] == size for i, size in enumerate(shape)]
    for i, size in enumerate(said):
        if same[i] and size != -1:
            walk.units.hold(dims[i - extra], "is given as a fixed size in an expansion: write -1 there")
    return tuple(dims[i - extra] if same[i] else place for i, place in enumerate(places))


def indexed(walk: Following, node: fx.Node) -> Dims:
    """Return what numbers and whole slices leave of a tensor."""
    if len(node.all_input_nodes) > 1:
        return walk.unknown(node)
    dims, index = walk.operand(node), node.args[1]
    index = index if isinstance(index, tuple) else (index,)
    left: list[Dim] = []
    rest = iter(dims)
    for entry in index:
        if entry is None:
            left.append(walk.units.new(1, PLACES))
            continue
        dim = next(rest)
        if entry == slice(None):
            left.append(dim)
        elif isinstance(entry, (int, slice)) and not isinstance(entry, bool):
            walk.units.hold(dim, "is picked from by number")
            left.extend([] if isinstance(entry, int) else [walk.units.new(walk.shapes[node][len(left)], PLACES)])
        else:
            return walk.unknown(node)
    return (*left, *rest)


def _flattened(walk: Following, node: fx.Node) -> Dims:
    return flatten(walk, node, argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1))


def _softmaxed(walk: Following, node: fx.Node) -> Dims:
    return softmax(walk, node, argument(node, 1, "dim", None))


Handler = Callable[["Following", fx.Node], "Dims"]

HANDLERS: dict[Callable[..., Any] | str, Handler] = {
    **dict.fromkeys(channelwise.ELEMENTWISE, unchanged),
    **dict.fromkeys(channelwise.POOLING, pooled),
    **dict.fromkeys(channelwise.JOINING, joined),
    **dict.fromkeys(channelwise.REDUCING, reduced),
    **dict.fromkeys(channelwise.CONCATENATING, concatenated),
    **dict.fromkeys(PRODUCTS, product),
    **dict.fromkeys((torch.flatten, "flatten"), _flattened),
    **dict.fromkeys((functional.softmax, torch.softmax, "softmax"), _softmaxed),
    **dict.fromkeys((torch.reshape, "reshape", "view"), reshape),
    **dict.fromkeys((torch.permute, "permute"), permute),
    **dict.fromkeys((torch.transpose, "transpose"), transpose),
    **dict.fromkeys((torch.unsqueeze, "unsqueeze"), unsqueeze),
    **dict.fromkeys((torch.squeeze, "squeeze"), squeeze),
    functional.scaled_dot_product_attention: attention,
    "expand": expand,
    operator.getitem: indexed,
}
"""By the function that a node calls, or the name of the tensor's method."""

CUTTING: channelwise.Operations = frozenset({torch.chunk, "chunk"})
"""Operations that cut a tensor into equal parts."""
