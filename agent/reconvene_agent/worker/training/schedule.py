"""Learning-rate schedules, as functions of the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from reconvene_agent.core.options import Schedule

RISE = 0.25
WARM_UP = 0.05
START_DIVISOR = 25.0
END_DIVISOR = 10_000.0


def one_cycle(step: int, total: int, peak: float) -> float:
    """Return the learning rate of ``step`` (0 to ``total`` − 1): up to ``peak`` in the first quarter, then down to almost 0.

    Smith and Topin 2018 (arXiv 1708.07120).
    """
    return _warmed(step, total, peak, RISE)


def cosine(step: int, total: int, peak: float) -> float:
    """Return the learning rate of ``step``: up to ``peak`` in the first twentieth, then down along half a cosine.

    Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.
    """
    return _warmed(step, total, peak, WARM_UP)


SCHEDULES: dict[Schedule, Callable[[int, int, float], float]] = {"onecycle": one_cycle, "cosine": cosine}


def _warmed(step: int, total: int, peak: float, share: float) -> float:
    turn = max(1.0, share * total)
    if step < turn:
        return _between(peak / START_DIVISOR, peak, step / turn)
    return _between(peak, peak / END_DIVISOR, (step - turn) / max(1.0, total - 1 - turn))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * min(1.0, share))) / 2.0
