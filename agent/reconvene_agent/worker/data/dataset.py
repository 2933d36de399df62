"""The inputs of one run: two parts, labels, and the statistics that normalise them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.census import Census
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.inputs import Inputs, items, kind_of
from reconvene_agent.worker.data.pages import AT_ONCE, Pages
from reconvene_agent.worker.data.scaling import normalize, statistics
from reconvene_agent.worker.data.skipped import Skipped

HASHED_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Part:
    """Raw inputs (N, …), of the kind that the model takes, and their classes (N,) int64; ``pages`` where they lie in a file."""

    inputs: Inputs
    classes: NDArray[np.int64]
    pages: Pages | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def between(self, start: int, stop: int) -> Part:
        """Return the inputs of these numbers, ``stop`` not among them, as a copy."""
        inputs = self.inputs[start:stop].copy()
        if self.pages is not None:
            self.pages.touched(2, inputs.nbytes // 2)
        return Part(inputs, self.classes[start:stop])

    def take(self, numbers: NDArray[np.int64]) -> Inputs:
        """Return a copy of the inputs of these numbers, in their order."""
        if self.pages is None:
            copied: Inputs = self.inputs[numbers]
            return copied
        inputs = np.empty((len(numbers), *self.inputs.shape[1:]), dtype=self.inputs.dtype)
        for start in range(0, len(numbers), AT_ONCE):
            some = numbers[start : start + AT_ONCE]
            inputs[start : start + AT_ONCE] = self.inputs[some]
            self.pages.touched(len(some), inputs[:1].nbytes)
        return inputs

    def let_go(self) -> None:
        """Give back the memory of inputs that lie in a file."""
        if self.pages is not None:
            self.pages.let_go()


@dataclass(frozen=True)
class Dataset:
    """``mean`` and ``std`` are per channel or feature of the training part, pixels scaled to 0..1; ``labels`` may be empty.

    ``remarks`` say, a line each, what whoever gathers the data should know; ``anew`` is False where the inputs were decoded, and
    what there is to say of them was said, before. ``census`` counts the files as they were when they were decoded.
    """

    train: Part
    validation: Part
    labels: tuple[str, ...]
    skipped: Skipped
    remarks: tuple[str, ...] = ()
    anew: bool = True
    census: Census | None = None
    mean: tuple[float, ...] = field(init=False)
    std: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        kind = kind_of(self.train.inputs.shape[1:])
        more = "make train/ and val/ folders" if kind == "image" else "bring a held-out part as x_val and y_val"
        for part, name in ((self.train, "training"), (self.validation, "held-out")):
            if len(part) < 2:
                left_out = f" ({self.skipped.sentence()})" if self.skipped.count else ""
                raise AgentError(
                    f"the data hold {len(part)} {name} {items(kind)}{left_out}, at least 2 are needed: add some, or {more}",
                    ErrorCode.NO_DATA,
                )
        mean, std = statistics(self.train.inputs, self.train.let_go)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    def normalized(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return raw inputs as the network takes them."""
        return normalize(inputs, self.mean, self.std)

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return so many normalised training inputs and their classes, all classes alike as far as there are enough."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        classes = self.train.classes[order]
        # The first of each class come first, then the second of each.
        turn = np.empty(len(order), dtype=np.int64)
        for each in np.unique(classes):
            (places,) = np.nonzero(classes == each)
            turn[places] = np.arange(len(places))
        chosen = order[np.argsort(turn, kind="stable")][:count]
        return self.normalized(self.train.take(chosen)), self.train.classes[chosen]

    def fingerprint(self) -> str:
        """Return a SHA-256 over every input and class: two runs with the same one saw the same data in the same order."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(repr(part.inputs.shape).encode())
            at_once = max(1, HASHED_AT_ONCE // max(1, part.inputs[:1].nbytes))
            for start in range(0, len(part), at_once):
                digest.update(np.ascontiguousarray(part.between(start, start + at_once).inputs).data)
            digest.update(part.classes.data)
        return digest.hexdigest()
