"""The arms that are compared: each makes a model at initialisation from a case; all are trained and measured alike."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from accuracy import engine, search
from accuracy.engine import Family, Plan
from accuracy.training import Recipe
from reconvene_agent.core.options import Criterion, MethodOptions
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.reconvene.method import Design

NARROWER = (0.7, 0.5, 0.35)
"""Uniformly narrower networks. Bytes go with the square of the width, so each has half those of the one before."""
RIVALS = (1.0, 0.7, 0.5)
"""Those that ours have to be as fast as, with at most half their bytes: the bytes of the next in the row."""
MIDDLE = 0.7
"""The rival at which other ways to make a network are tried as well."""


@dataclass(frozen=True)
class Point:
    """What a design follows from. ``matches`` holds, by arm, the width multiplier with which ours is as fast as its rival."""

    family: Family
    sparsity: float
    seed: int
    matches: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """What any arm may use: a search needs data and trains."""

    point: Point
    data: Dataset
    recipe: Recipe


@dataclass(frozen=True)
class Arm:
    """One line of the table, made from a design on paper or, where that does not tell all, by ``make``.

    ``short`` is its label in the plot. An arm of ours has a ``rival``, the multiplier of the narrower network that it has to be
    as fast as, and the method's ``options``.
    """

    name: str
    short: str
    family: str
    design: Callable[[Point], Design] | None = None
    make: Callable[[Case], Plan] | None = None
    rival: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, case: Case) -> Plan:
        """Return the arm's model at initialisation."""
        found = self.on_paper(case.point)
        if found is not None:
            return engine.build(case.point.family.spec, case.point.seed, found)
        assert self.make is not None
        return self.make(case)

    def on_paper(self, point: Point) -> Design | None:
        """Return the arm's design, or None where only making it tells.

        Raises:
            KeyError: nothing of ours matches the rival.
        """
        if self.rival is not None:
            return self.within(point, point.matches[self.name])
        return None if self.design is None else self.design(point)

    def within(self, point: Point, alpha: float) -> Design | None:
        """Return our design for a width multiplier at the lowest sparsity that takes half the bytes of the rival.

        The multiplier answers latency, the sparsity answers memory. None where no sparsity takes so few.
        """
        assert self.rival is not None
        most = engine.uniform(point.family, self.rival).costs().file_bytes / 2

        def at(hundredths: int) -> Design:
            return _reconvene(point, hundredths / 100, alpha, **self.options)

        lowest = bisect_left(range(100), True, key=lambda hundredths: at(hundredths).costs().file_bytes <= most)
        return at(lowest) if lowest < 100 else None

    def identity(self, point: Point) -> str | None:
        """Return what tells the arm's model from others of its seed, or None where only making it would tell."""
        found = self.on_paper(point)
        return None if found is None else json.dumps([sorted(found.widths.items()), sorted(found.mask_sizes.items())])


def _reconvene(point: Point, sparsity: float, alpha: float = 1.0, **options: Any) -> Design:
    return engine.design(point.family.spec, point.seed, sparsity, point.family.options(alpha, **options))


def _reading(point: Point, **options: Any) -> Design:
    return _reconvene(point, point.sparsity, **options)


def _uniform(point: Point, multiplier: float) -> Design:
    return engine.uniform(point.family, multiplier)


def _unstructured(case: Case) -> Plan:
    """Return the unstructured counterpart of the masked default reading, with as many non-zero weights."""
    return engine.with_global_masks(case.point.family, case.point.seed, _reading(case.point).costs().nonzero)


def _filter_norm(case: Case) -> Plan:
    return engine.keep_filters(case.point.family, case.point.seed, _uniform(case.point, MIDDLE).widths)


def _searched(case: Case) -> Plan:
    family = case.point.family
    mine = ARMS[as_fast_as(MIDDLE)].on_paper(case.point)
    assert mine is not None
    return search.searched(family, engine.macs(family.spec, mine.widths), case.data, case.recipe)


def _permuted(point: Point) -> Design:
    spec, options = point.family.spec, point.family.options(1.0)
    densities = [layer.density for layer in engine.design(spec, point.seed, point.sparsity, options).layers]
    order = torch.randperm(len(densities), generator=generator(point.seed, "permuted densities")).tolist()
    return engine.with_densities(spec, point.seed, [densities[index] for index in order], options)


def as_fast_as(rival: float, criterion: Criterion | None = None) -> str:
    """Return the name of the arm of ours that has to be as fast as the narrower network of this multiplier."""
    return f"ours as ×{rival:g}" + (f" by {criterion}" if criterion else "")


def _readings() -> list[Arm]:
    readings = [
        ("mean", "density", "masked"),
        ("mean", "density", "dense"),
        ("mean", "sqrt", "masked"),
        ("mean", "sqrt", "dense"),
        ("weighted", "density", "masked"),
    ]
    letters = {"mean": "m", "weighted": "w", "density": "d", "sqrt": "√d"}
    return [
        Arm(
            f"{average}/{width}/{sensitive}",
            f"{letters[average]}/{letters[width]} {sensitive}",
            "reading",
            partial(_reading, average=average, width=width, sensitive=sensitive),
        )
        for average, width, sensitive in readings
    ]


def _ours(rival: float, criterion: Criterion | None = None) -> Arm:
    name = as_fast_as(rival, criterion)
    options = {"sensitive": "dense", **({"criterion": criterion} if criterion else {})}
    return Arm(name, name.removeprefix("ours "), "ours" if criterion is None else "criteria", rival=rival, options=options)


def _catalogue() -> dict[str, Arm]:
    criteria: tuple[Criterion, ...] = ("magnitude", "erk", "synflow")
    others = [criterion for criterion in criteria if criterion != MethodOptions().criterion]
    arms = [
        Arm("dense", "dense", "dense", partial(_uniform, multiplier=1.0)),
        Arm("unstructured", "unstructured", "unstructured", make=_unstructured),
        *_readings(),
        *(_ours(rival) for rival in RIVALS),
        *(_ours(MIDDLE, criterion) for criterion in others),
        Arm("shrink", "all by √d", "shrink", partial(_reading, sensitive="shrink")),
        *(Arm(f"narrower ×{share:g}", f"×{share:g}", "narrower", partial(_uniform, multiplier=share)) for share in NARROWER),
        Arm("filter norm", "filter norm", "filter norm", make=_filter_norm),
        Arm("search", "search", "search", make=_searched),
        Arm("permuted", "permuted", "permuted", _permuted),
    ]
    return {arm.name: arm for arm in arms}


ARMS = _catalogue()
"""Every arm by name, in the table's order."""
