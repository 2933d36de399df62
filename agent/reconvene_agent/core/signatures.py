"""The ways in which the method is known to fail: each with a name, what it was seen by, and what to do about it. Pure.

The third one, memory that does not suffice, is the error NO_MEMORY with the figure that was missing. Documents are those of
``core.plan`` and of the pruned layers, as results and events hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from reconvene_agent.core.plan import Candidate, named
from reconvene_agent.core.release import Latency

Name = Literal["accuracy_collapse", "no_speedup"]

FASTER = 1.05
"""The pruned model's median must be better than the dense one's by this factor to count as faster."""
MOST_NAMED = 4

Layers = Sequence[Mapping[str, Any]]


class Signature(Struct, frozen=True):
    """A failure that is recognised; ``text`` is one line for people."""

    name: Name
    text: str


def no_speedup(dense: Latency, pruned: Latency) -> Signature | None:
    """Return the signature of a pruned model that is not faster than the dense one, both timed in turn."""
    ratio = dense.p50 / pruned.p50
    if ratio >= FASTER:
        return None
    return Signature(
        "no_speedup",
        f"pruning makes this model no faster here: p50 {pruned.p50:.3g} ms against {dense.p50:.3g} ms dense ({ratio:.2f}×); "
        "the time is spent elsewhere (first layer, classifier, memory): a lower width multiplier narrows every layer",
    )


def accuracy_collapse(layers: Layers, min_width: int, chosen: Candidate, known: Sequence[Candidate]) -> Signature:
    """Return the signature of a model that is too inaccurate: the layers that are likely to blame, and the plan to try next.

    Args:
        layers: the pruned layers, with ``name``, ``verdict``, ``width_before`` and ``width_after``.
        min_width: fewest channels that a group may keep.
        chosen: what was trained.
        known: what else the plan knows of.
    """
    return Signature("accuracy_collapse", f"{_suspects(layers, min_width)}; {_neighbour(chosen, known)}")


def _suspects(layers: Layers, min_width: int) -> str:
    narrowed = [layer for layer in layers if layer["width_after"] < layer["width_before"]]
    least = [layer for layer in narrowed if layer["width_after"] <= min_width]
    if least:
        return f"at the minimum width of {min_width}: {_names(least)}"
    sensitive = [layer for layer in narrowed if layer["verdict"] == "sensitive"]
    if sensitive:
        return f"sensitive layers were narrowed: {_names(sensitive)}"
    if narrowed:
        most = sorted(narrowed, key=lambda layer: float(layer["width_after"]) / layer["width_before"])
        return f"narrowed most: {_names(most[:MOST_NAMED])}"
    return "no layer was narrowed: look at the data and the training"


def _names(layers: Layers) -> str:
    told = ", ".join(f"{layer['name']} {layer['width_before']}→{layer['width_after']}" for layer in layers[:MOST_NAMED])
    more = len(layers) - MOST_NAMED
    return f"{told} and {more} more" if more > 0 else told


def _neighbour(chosen: Candidate, known: Sequence[Candidate]) -> str:
    larger = sorted((each for each in known if each.params > chosen.params), key=lambda each: each.params)
    within = [each for each in larger if each.feasible is not False]
    nearest = next(iter(within or larger), None)
    if nearest is None:
        return "try a lower sparsity or more training"
    known_as = named(nearest.width_multiplier, nearest.sparsity)
    if within:
        return f"try {known_as}, which the budget may allow"
    return f"try {known_as}, for which the budget must be raised: {nearest.why}"
