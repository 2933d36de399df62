"""Magnitude: exactly, on shipped weights, or in closed form where a seed alone tells them.

Han et al. 2015 (arXiv 1506.02626); at initialisation: Frankle et al. 2021 (arXiv 2009.08576), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reconvene_agent.worker.reconvene.criteria.apportion import apportion
from reconvene_agent.worker.reconvene.criteria.cut import Cuts, Histogram
from reconvene_agent.worker.reconvene.criteria.subject import Kept, Subject

# Halvings of the interval that holds the threshold: more than a float64 can tell apart.
_HALVINGS = 80


def magnitude(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Keep the globally largest |w|: for each sparsity s, round((1 − s) · N) weights of all N.

    Raises:
        ValueError: a weight is not a number.
    """
    keeps = [subject.keep(sparsity) for sparsity in sparsities]
    if subject.weights.shipped:
        return _exact(subject, keeps)
    return [_closed_form(subject, keep) for keep in keeps]


def _exact(subject: Subject, keeps: Sequence[int]) -> list[Kept]:
    """Return the counts of a global sort, in two passes that hold one layer at a time; ties go to the earlier layer."""
    histograms = {
        name: Histogram(subject.weights.weight(f"{name}.weight", shape), name, magnitudes=True)
        for name, shape in subject.shapes.items()
    }
    cuts = Cuts(histograms, keeps)
    for name, shape in subject.shapes.items():
        cuts.show(name, subject.weights.weight(f"{name}.weight", shape))
    return cuts.kept()


def _closed_form(subject: Subject, keep: int) -> Kept:
    """Return the expected counts at Kaiming-normal initialisation, without drawing a weight.

    Of a layer with standard deviation σ = √(2 / fan-in), the share erfc(t / (σ·√2)) = erfc(t·√fan-in / 2) lies above t
    in magnitude; the global threshold t is found by bisection.
    """
    sizes = subject.sizes
    fans = {name: math.prod(shape[1:]) for name, shape in subject.shapes.items()}
    low, high = 0.0, 80.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(size * math.erfc(middle * math.sqrt(fans[name]) / 2) for name, size in sizes.items()) > keep:
            low = middle
        else:
            high = middle
    shares = {name: size * math.erfc(high * math.sqrt(fans[name]) / 2) for name, size in sizes.items()}
    return apportion(shares, sizes, keep)
