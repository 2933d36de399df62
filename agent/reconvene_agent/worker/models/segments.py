"""Where a model can be cut, so that training need not keep what lies between the cuts: it is computed anew when it is needed.

Chen et al. 2016 (arXiv 1604.06174).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import fx

from reconvene_agent.worker.models.tracing import Traced

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Segments:
    """How to cut a model.

    Attributes:
        cuts: the nodes after which it is cut, by name, in order; none where it cannot be cut.
        saved: bytes for each input that are kept at most at a time: tensors at the cuts, and all of the largest segment.
    """

    cuts: tuple[str, ...]
    saved: int


def activation_bytes(traced: Traced, node: fx.Node) -> int:
    """Return the bytes of a node's tensor for one input; 0 where it makes none."""
    return FLOAT_BYTES * math.prod(traced.shapes[node]) if node in traced.shapes else 0


def saved_activations(traced: Traced) -> int:
    """Return the bytes for each input that the backward pass needs: every tensor of the graph once."""
    return sum(activation_bytes(traced, node) for node in traced.shapes)


def find_segments(traced: Traced) -> Segments:
    """Return the cuts with which a model keeps the fewest bytes for each input."""
    sizes = [activation_bytes(traced, node) for node in traced.graph.graph.nodes]
    names = [node.name for node in traced.graph.graph.nodes]
    places = list(_bridges(traced))
    best = Segments((), sum(sizes))
    for count in range(2, len(places) + 2):
        chosen = _evenly(places, sizes, sum(sizes) / count)
        saved = _kept(chosen, sizes)
        if saved < best.saved:
            best = Segments(tuple(names[place] for place in chosen), saved)
    return best


def _bridges(traced: Traced) -> Iterator[int]:
    """Yield the numbers of the nodes whose tensor is all that later nodes need of earlier ones, parameters apart."""
    nodes = list(traced.graph.graph.nodes)
    number = {node: index for index, node in enumerate(nodes)}
    needed_until = {node: max((number[user] for user in node.users), default=-1) for node in nodes if node.op != "get_attr"}
    reach = -1
    for index, node in enumerate(nodes[:-2]):
        if node.op not in ("placeholder", "get_attr", "output") and node in traced.shapes and reach <= index < needed_until[node]:
            yield index
        reach = max(reach, needed_until.get(node, -1))


def _evenly(places: Sequence[int], sizes: Sequence[int], wanted: float) -> list[int]:
    """Return the places to cut at so that every segment holds about as many bytes as are wanted."""
    chosen: list[int] = []
    held, start = 0, 0
    for place in places:
        held += sum(sizes[start : place + 1])
        start = place + 1
        if held >= wanted:
            chosen.append(place)
            held = 0
    return chosen


def _kept(cuts: Sequence[int], sizes: Sequence[int]) -> int:
    ends = [-1, *cuts, len(sizes) - 1]
    segments = [sum(sizes[one + 1 : other + 1]) for one, other in itertools.pairwise(ends)]
    return sum(sizes[place] for place in cuts) + max(segments)
