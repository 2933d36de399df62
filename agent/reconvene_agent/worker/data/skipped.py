"""What was left out of local data, and why: every file or line counted by reason, the first of each named."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Reason = Literal[
    "broken",
    "too_large",
    "colour",
    "format",
    "unreadable",
    "outside",
    "duplicate",
    "contradiction",
    "unknown_class",
    "malformed",
    "too_short",
]
"""Why something was left out; docs/data.md says what each means."""

_WORDS: dict[Reason, str] = {
    "broken": "broken",
    "too_large": "too large",
    "colour": "of colours that cannot be converted",
    "format": "of another format",
    "unreadable": "unreadable",
    "outside": "outside the folder",
    "duplicate": "duplicate",
    "contradiction": "the same in two classes",
    "unknown_class": "of unknown classes",
    "malformed": "malformed",
    "too_short": "too short",
}
UNUSABLE: tuple[Reason, ...] = ("broken", "too_large", "colour", "unreadable", "malformed")
"""What tells of a bad disk, camera or sensor; the other reasons tell of how the data were gathered."""
NAMED_EXAMPLES = 3
"""How many are named of each reason."""


@dataclass(frozen=True)
class Skipped:
    """How many were left out for each reason, and the first few of each as ``name: why``."""

    counts: dict[Reason, int] = field(default_factory=dict)
    examples: dict[Reason, tuple[str, ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def unusable(self) -> int:
        return sum(self.counts.get(reason, 0) for reason in UNUSABLE)

    def sentence(self) -> str:
        """Return what was left out in a line, the most frequent reason first."""
        order = sorted(self.counts, key=lambda reason: (-self.counts[reason], get_args(Reason).index(reason)))
        return f"skipped {self.count}: " + ", ".join(f"{self.counts[reason]} {_WORDS[reason]}" for reason in order)

    def named(self) -> list[str]:
        """Return the examples: the first of each reason before the second of any."""
        rounds = range(max((len(each) for each in self.examples.values()), default=0))
        return [each[turn] for turn in rounds for each in self.examples.values() if turn < len(each)]


class Skipping:
    """Counts what is left out while data are read."""

    def __init__(self) -> None:
        self._counts: dict[Reason, int] = {}
        self._examples: dict[Reason, list[str]] = {}

    def skip(self, reason: Reason, name: str | Path, why: str) -> None:
        """Count one, and name it if it is among the first."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < NAMED_EXAMPLES:
            examples.append(f"{shown(name)}: {why}")

    def outcome(self) -> Skipped:
        return Skipped(dict(self._counts), {reason: tuple(names) for reason, names in self._examples.items()})


def shown(name: str | Path) -> str:
    """Return a file's name as text that can be passed on, whatever bytes it is made of."""
    return os.fsencode(name).decode(errors="replace")
