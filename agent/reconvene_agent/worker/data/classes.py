"""Classes: which of the model's outputs stands for which, and what is to be said of those with too few inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import Part
from reconvene_agent.worker.data.inputs import items, kind_of
from reconvene_agent.worker.data.skipped import shown

FEW = 5
"""A class with fewer inputs than that is hardly learned."""
NAMED = 8


def number_classes(names: Sequence[str], spec: ModelSpec, labels: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the number of every class that the model knows, and all labels: the bundle's, else the names in their order.

    Raises:
        AgentError: BAD_DATA where no name is a label, or without labels there are not as many names as outputs.
    """
    unreadable = [name for name in names if shown(name) != name]
    if unreadable:
        raise AgentError(f"the name of class folder {unreadable[0]!a} is not UTF-8: rename it", ErrorCode.BAD_DATA)
    if labels:
        numbers = {label: number for number, label in enumerate(labels)}
        if names and not set(names) & set(labels):
            raise AgentError(
                f"no class of the data ({_some(names)}) is among the bundle's labels ({_some(labels)})", ErrorCode.BAD_DATA
            )
        return {name: numbers[name] for name in names if name in numbers}, tuple(labels)
    if names and len(names) != spec.classes:
        raise AgentError(
            f"the data's classes are {len(names)} ({_some(names)}), the bundle's {spec.classes}, and it has no labels to match "
            "them by",
            ErrorCode.BAD_DATA,
        )
    return {name: number for number, name in enumerate(names)}, tuple(names)


def remarks(train: Part, held_out: Part, labels: Sequence[str], count: int) -> tuple[str, ...]:
    """Return what is to be said of the classes of which there are too few inputs on either side, a line each."""
    trained, held = (np.bincount(part.classes, minlength=count) for part in (train, held_out))
    names = [labels[number] if number < len(labels) else str(number) for number in range(count)]
    many = items(kind_of(train.inputs.shape[1:]))
    both = list(zip(names, trained.tolist(), held.tolist(), strict=True))
    without = [name for name, some, others in both if not some + others]
    few = [f"{name} ({some + others})" for name, some, others in both if 0 < some + others < FEW]
    unlearned = [name for name, some, others in both if not some and others]
    unjudged = [name for name, some, others in both if some and not others]
    said = (
        (without, f"no {many}: the model cannot tell them"),
        (few, f"fewer than {FEW} {many}: more would help"),
        (unlearned, f"{many} in the held-out part alone: the model cannot learn them"),
        (unjudged, f"no held-out {many}: how well they are told is not measured"),
    )
    return tuple(f"classes with {what}: {_some(which)}" for which, what in said if which)


def _some(names: Iterable[str]) -> str:
    """Return the first few names, and how many there are beyond."""
    every = list(names)
    more = len(every) - NAMED
    return ", ".join(every[:NAMED]) + (f" and {more} more" if more > 0 else "")
