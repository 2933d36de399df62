"""Which entries of which dimensions live and die together: union-find over units, with dimensions as rows of units.

A *unit* is a set of things that can only be kept or dropped one by one: the channels of a layer, the heads of an attention.
A dimension is a row of segments; a segment is all things of a unit, each with the same number of entries. So the inputs
of a linear layer behind a flattened image are one segment of channels with height · width entries each, those of a
layer behind a concatenation are one segment after another.
"""

from __future__ import annotations

Segment = tuple[int, int]
"""A unit's number, and the entries of each of its things."""

Dim = tuple[Segment, ...]
"""One dimension of a tensor."""


class MisfitError(Exception):
    """Two dimensions of one size cannot be divided alike."""


class Partition:
    """All units of one graph. Units are merged and divided as the graph is read; dimensions stay valid."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._width: list[int] = []
        self._parts: dict[int, Dim] = {}
        self._frozen: dict[int, str] = {}

    def new(self, width: int, frozen: str = "") -> Dim:
        """Return a dimension that is one new unit of ``width`` things; ``frozen`` says why it may not change, if so."""
        unit = len(self._parent)
        self._parent.append(unit)
        self._width.append(width)
        if frozen:
            self._frozen[unit] = frozen
        return ((unit, 1),)

    def resolve(self, dim: Dim) -> Dim:
        """Return the dimension in terms of the units as they are divided and merged by now."""
        found: list[Segment] = []
        for unit, times in dim:
            root = self._root(unit)
            if root in self._parts:
                found.extend((part, inner * times) for part, inner in self.resolve(self._parts[root]))
            else:
                found.append((root, times))
        return tuple(found)

    def width(self, unit: int) -> int:
        return self._width[self._root(unit)]

    def size(self, dim: Dim) -> int:
        return sum(self.width(unit) * times for unit, times in dim)

    def hold(self, dim: Dim, reason: str) -> None:
        """Let no unit of a dimension change; the first reason stays."""
        for unit, _ in self.resolve(dim):
            self._frozen.setdefault(unit, reason)

    def frozen(self, dim: Dim) -> str:
        """Return why a unit of the dimension may not change; empty when all may."""
        return next((self._frozen[unit] for unit, _ in self.resolve(dim) if unit in self._frozen), "")

    def fixed(self, dim: Dim) -> bool:
        """Tell whether no unit of the dimension may change."""
        return all(unit in self._frozen for unit, _ in self.resolve(dim))

    def align(self, one: Dim, other: Dim) -> None:
        """Make two dimensions of one size the same, entry by entry: units are merged, divided into blocks, or cut in two.

        Raises:
            MisfitError: that cannot be; some units may have been merged by then, so the caller holds both.
        """
        if self.size(one) != self.size(other):
            raise MisfitError
        while (differing := self._first_difference(one, other)) is not None:
            (unit, times), (rival, entries) = differing
            size, room = self._width[unit] * times, self._width[rival] * entries
            if size > room:
                self._cut(unit, room, times)
            elif room > size:
                self._cut(rival, size, entries)
            elif times == entries:
                self._union(unit, rival)
            elif times % entries == 0:
                self._divide(rival, unit, times // entries)
            elif entries % times == 0:
                self._divide(unit, rival, entries // times)
            else:
                raise MisfitError

    def _first_difference(self, one: Dim, other: Dim) -> tuple[Segment, Segment] | None:
        pairs = zip(self.resolve(one), self.resolve(other), strict=False)
        return next((pair for pair in pairs if pair[0] != pair[1]), None)

    def _cut(self, unit: int, size: int, times: int) -> None:
        """Cut a unit in two, the first of them ``size`` entries long."""
        head, rest = divmod(size, times)
        if rest:
            raise MisfitError
        reason = self._frozen.pop(unit, "")
        self._parts[unit] = self.new(head, reason) + self.new(self._width[unit] - head, reason)

    def _divide(self, unit: int, blocks: int, entries: int) -> None:
        """Make every thing of ``blocks`` stand for so many things of ``unit``."""
        if unit in self._frozen:
            self._frozen.setdefault(blocks, self._frozen.pop(unit))
        self._parts[unit] = ((blocks, entries),)

    def _union(self, one: int, other: int) -> None:
        one, other = sorted((one, other))
        self._parent[other] = one
        if other in self._frozen:
            self._frozen.setdefault(one, self._frozen.pop(other))

    def _root(self, unit: int) -> int:
        while self._parent[unit] != unit:
            self._parent[unit] = self._parent[self._parent[unit]]
            unit = self._parent[unit]
        return unit
