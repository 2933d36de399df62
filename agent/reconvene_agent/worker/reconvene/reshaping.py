"""What becomes of dimensions that a reshape folds together or takes apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from reconvene_agent.worker.reconvene.partition import Dim, MisfitError, Partition

PLACES = "is no channel of any layer"
SIZE = "is given as a fixed size in a reshape: write -1 there"
MIXED = "is folded into another dimension in a way that is not understood"

Shape = tuple[int, ...]
Target = Dim | None
"""How a reshape says one size: the dimension it was taken from, an empty one for -1, None for a number."""

FREE: Dim = ()


def fold(units: Partition, dims: Sequence[Dim], before: Shape, after: Shape, targets: Sequence[Target]) -> tuple[Dim, ...]:
    """Return the dimensions of a tensor of shape ``before`` once it has the shape ``after``.

    ``targets`` is how the reshape said each size of ``after``. Whatever would break when a unit becomes narrower is held.
    """
    result: list[Dim] = []
    for sources, sinks in _blocks(before, after):
        said = targets[sinks.start : sinks.stop]
        made = _block(units, [dims[i] for i in sources], [after[i] for i in sinks], said)
        for dim, target in zip(made, said, strict=True):
            _keep_promise(units, dim, target)
        result.extend(made)
    return tuple(result)


def _blocks(before: Shape, after: Shape) -> Iterator[tuple[range, range]]:
    """Pair the fewest neighbouring dimensions that hold as many entries before as after."""
    start = begin = 0
    for stop in range(1, len(before) + 1):
        end = next((j for j in range(begin + 1, len(after) + 1) if _same(before, after, start, stop, begin, j)), None)
        if end is None:
            continue
        # Dimensions of one entry go with the block before them.
        while end < len(after) and after[end] == 1 and not (stop < len(before) and before[stop] == 1):
            end += 1
        yield range(start, stop), range(begin, end)
        start, begin = stop, end
    if start < len(before) or begin < len(after):
        yield range(start, len(before)), range(begin, len(after))


def _same(before: Shape, after: Shape, start: int, stop: int, begin: int, end: int) -> bool:
    return math.prod(before[start:stop]) == math.prod(after[begin:end])


def _block(units: Partition, dims: list[Dim], sizes: list[int], targets: Sequence[Target]) -> list[Dim]:
    places = [units.new(size, PLACES) for size in sizes]
    if len(dims) == 1 and len([size for size in sizes if size != 1]) <= 1:
        # The same dimension, dimensions of one entry apart.
        position = next((i for i, size in enumerate(sizes) if size != 1), 0)
        return [dims[0] if i == position else place for i, place in enumerate(places)]
    if len(sizes) == 1:
        return [_folded(units, dims)]
    if len(dims) == 1:
        return _taken_apart(units, dims[0], sizes, targets, places)
    for dim in dims:
        units.hold(dim, MIXED)
    return places


def _folded(units: Partition, dims: list[Dim]) -> Dim:
    """Return several dimensions as one, the first the slowest: a row of the one that may change, or whatever is held."""
    free = [i for i, dim in enumerate(dims) if not units.fixed(dim)]
    for i in free[1:]:
        units.hold(dims[i], MIXED)
    if not free:
        return units.new(math.prod(units.size(dim) for dim in dims), PLACES)
    position = free[0]
    outer = math.prod(units.size(dim) for dim in dims[:position])
    inner = math.prod(units.size(dim) for dim in dims[position + 1 :])
    return tuple((unit, times * inner) for unit, times in units.resolve(dims[position])) * outer


def _taken_apart(units: Partition, dim: Dim, sizes: list[int], targets: Sequence[Target], places: list[Dim]) -> list[Dim]:
    """Return one dimension as several; where the reshape leaves a size open, its things become a dimension of their own."""
    if units.fixed(dim):
        return places
    position = next((i for i, target in enumerate(targets) if target == FREE), None)
    if position is None:
        units.hold(dim, SIZE)
        return places
    things = units.new(sizes[position])
    outer, inner = math.prod(sizes[:position]), math.prod(sizes[position + 1 :])
    try:
        units.align(dim, tuple((unit, inner) for unit, _ in things) * outer)
    except MisfitError:
        units.hold(dim, MIXED)
        return places
    return [things if i == position else place for i, place in enumerate(places)]


def _keep_promise(units: Partition, dim: Dim, target: Target) -> None:
    """Hold a dimension whose size the reshape says in a way that would not follow it."""
    if target is None:
        units.hold(dim, SIZE)
    elif target != FREE and units.resolve(target) != units.resolve(dim):
        units.hold(dim, SIZE)
        units.hold(target, SIZE)
