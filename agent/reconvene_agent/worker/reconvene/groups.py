"""Channel groups: which dimensions of which layers must have the same width, read off the traced graph.

Layers whose outputs are added share their channels; batch-norm and depthwise convolutions follow their input; a
concatenation gives its reader several groups one after another; the heads of an attention are one group of its query,
key and value. What is not understood is left at its width and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.models.tracing import Traced
from reconvene_agent.worker.reconvene.following import Following


@dataclass(frozen=True)
class ChannelGroup:
    """Things that live and die together: channels, blocks of a grouped convolution, heads of an attention.

    Attributes:
        name: that of the first layer that computes them, or else of the first that they pass.
        width: how many there are.
        entries: outputs that its producers have for each of them; more than one for heads.
        producers: the layers that compute them.
        frozen: why the width may not change; empty when it may.
        trunk: they are what a transformer hands from block to block.
        output: they are the model's answer.
    """

    name: str
    width: int
    entries: int
    producers: tuple[str, ...]
    frozen: str
    trunk: bool = False
    output: bool = False


@dataclass(frozen=True)
class Side:
    """One dimension of one layer: a row of groups (by number), each with its entries for one thing of the group.

    ``side`` is ``in``, ``out``, ``both`` (normalisations), ``groups`` (of a grouped convolution or normalisation), or the
    number of a dimension of a parameter that is used by itself, whose name then is ``layer``.
    """

    layer: str
    side: str
    parts: tuple[tuple[int, int], ...]

    def size(self, widths: Sequence[int]) -> int:
        """Return the entries of this dimension when the groups have these widths."""
        return sum(widths[number] * entries for number, entries in self.parts)


@dataclass(frozen=True)
class Structure:
    """Everything about a model that decides how its layers may be narrowed."""

    groups: tuple[ChannelGroup, ...]
    sides: tuple[Side, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(group.width for group in self.groups)

    def narrowed(self, widths: Sequence[int]) -> Structure:
        """Return the structure of the model that has these widths."""
        groups = tuple(replace(group, width=width) for group, width in zip(self.groups, widths, strict=True))
        return Structure(groups, self.sides)

    def answers(self) -> frozenset[str]:
        """Return the layers whose outputs are the model's answer."""
        return frozenset(name for group in self.groups if group.output for name in group.producers)

    def held(self) -> dict[str, str]:
        """Return why the outputs of a layer may not become fewer, for every such layer."""
        return {name: group.frozen for group in reversed(self.groups) if group.frozen for name in group.producers}

    def named(self, widths: Sequence[int]) -> dict[str, int]:
        """Return the widths of the groups that a layer computes, by the groups' names."""
        return {group.name: width for group, width in zip(self.groups, widths, strict=True) if group.producers}

    def numbered(self, widths: Mapping[str, int]) -> tuple[int, ...]:
        """Return the widths of all groups from those that have a name here: the inverse of ``named``.

        Raises:
            BundleError: a group is missing or unknown, or its width is not between 1 and the dense one.
        """
        strangers = widths.keys() - {group.name for group in self.groups if group.producers}
        if strangers:
            raise BundleError(f"{min(strangers)} is no channel group of the architecture")
        found = []
        for group in self.groups:
            width = widths.get(group.name, 0) if group.producers else group.width
            if not 1 <= width <= group.width or (group.frozen and width != group.width):
                raise BundleError(f"a width of {width} for {group.name} does not fit the architecture")
            found.append(width)
        return tuple(found)


def find_groups(traced: Traced) -> Structure:
    """Return the channel groups of a traced model, in the order of its graph."""
    walk = Following(traced)
    units = walk.units
    rows = {key: units.resolve(dim) for key, dim in walk.sides.items()}
    number = {unit: index for index, unit in enumerate(dict.fromkeys(unit for row in rows.values() for unit, _ in row))}
    answers = {unit for dim in walk.answers for unit, _ in units.resolve(dim)}
    trunk = {unit for name in walk.sequences for unit, _ in rows[name, "both"]}
    members = {unit: [key for key, row in rows.items() if any(found == unit for found, _ in row)] for unit in number}
    producers = {
        unit: [layer for layer, side in keys if side == "out" and layer in walk.producers] for unit, keys in members.items()
    }
    # Groups that a layer computes come first: their names are those that people read.
    names = _names(
        {unit: producers[unit] or [members[unit][0][0]] for unit in sorted(number, key=lambda unit: not producers[unit])}
    )
    groups = [
        ChannelGroup(
            name=names[unit],
            width=units.width(unit),
            entries=max((times for layer in producers[unit] for found, times in rows[layer, "out"] if found == unit), default=1),
            producers=tuple(producers[unit]),
            frozen=units.frozen(((unit, 1),)),
            trunk=unit in trunk,
            output=unit in answers,
        )
        for unit in number
    ]
    sides = tuple(Side(layer, side, tuple((number[unit], times) for unit, times in row)) for (layer, side), row in rows.items())
    return Structure(tuple(groups), sides)


def _names(layers: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Name each unit after the first of its layers; where a layer computes several, they are numbered."""
    taken: Counter[str] = Counter()
    names = {}
    for unit, (first, *_) in layers.items():
        taken[first] += 1
        names[unit] = first if taken[first] == 1 else f"{first}:{taken[first]}"
    return names
