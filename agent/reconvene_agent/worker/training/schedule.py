"""The OneCycle learning-rate schedule (Smith and Topin 2018, arXiv 1708.07120), as a function of the step alone."""

from __future__ import annotations

import math

WARM_UP = 0.25
START_DIVISOR = 25.0
END_DIVISOR = 10_000.0


def one_cycle(step: int, total: int, peak: float) -> float:
    """Return the learning rate of ``step`` (0 to ``total`` − 1): up to ``peak`` in the first quarter, then down to almost 0."""
    turn = max(1.0, WARM_UP * total)
    if step < turn:
        return _between(peak / START_DIVISOR, peak, step / turn)
    return _between(peak, peak / END_DIVISOR, (step - turn) / max(1.0, total - 1 - turn))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * min(1.0, share))) / 2.0
