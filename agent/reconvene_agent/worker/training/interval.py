"""When to store a checkpoint: as often as its cost allows."""

from __future__ import annotations

SHARE = 0.02
"""Of the time that training takes, checkpoints take at most this."""


class Interval:
    """Says when a checkpoint is due. The first is due at once: what it costs tells when the next one is."""

    def __init__(self) -> None:
        self._due = 0.0

    def is_due(self, spent: float) -> bool:
        """Whether to store one now, after ``spent`` seconds of training."""
        return spent >= self._due

    def stored(self, spent: float, cost: float) -> None:
        """Note that storing one took ``cost`` seconds."""
        self._due = spent + cost / SHARE
