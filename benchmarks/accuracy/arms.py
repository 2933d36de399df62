"""The arms that are compared: each makes a model at initialisation from a case; all are trained and measured alike."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from accuracy import engine, search
from accuracy.engine import Family, Plan
from accuracy.training import Recipe
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.reconvene.method import Design

ALPHAS = (0.7, 0.5)
NARROW = (0.85, 0.7, 0.5, 0.35)
HALVED = (0.7, 0.5)
MIDDLE = 0.7
"""The width multiplier of ours whose latency the filter norm and the search have to meet."""


@dataclass(frozen=True)
class Point:
    """What a design follows from. ``matches`` holds the multiplier of the narrower network as fast as ours, by ours."""

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

    ``short`` is its label in the plot; ``match`` says which equal-latency multiplier it uses.
    """

    name: str
    short: str
    family: str
    design: Callable[[Point], Design] | None = None
    make: Callable[[Case], Plan] | None = None
    match: str = ""

    def plan(self, case: Case) -> Plan:
        """Return the arm's model at initialisation."""
        if self.design is not None:
            return engine.build(case.point.family.spec, case.point.seed, self.design(case.point))
        assert self.make is not None
        return self.make(case)

    def identity(self, point: Point) -> str | None:
        """Return what tells the arm's model from others of its seed, or None where only making it would tell."""
        if self.design is None:
            return None
        found = self.design(point)
        return json.dumps([sorted(found.widths.items()), sorted(found.mask_sizes.items())])


def _uniform(point: Point, multiplier: float) -> Design:
    return engine.uniform(point.family, multiplier)


def _matched(point: Point, key: str) -> Design:
    return engine.uniform(point.family, point.matches[key])


def _unstructured(case: Case) -> Plan:
    return engine.with_global_masks(case.point.family, case.point.seed, case.point.sparsity)


def ours(point: Point, alpha: float, sensitive: str) -> Design:
    """Return our design: a width multiplier for latency first, then the evaluator with the roots of the densities."""
    return _reconvene(point, alpha, width="sqrt", sensitive=sensitive)


def _halved(point: Point, alpha: float) -> Design:
    """Return our design for a width multiplier at the lowest sparsity that halves the uniformly narrower network's file.

    No width is above the narrower network's, so neither is the latency: the multiplier answers it, the sparsity the memory.
    """
    most = engine.uniform(point.family, alpha).costs().file_bytes / 2
    hundredths = range(100)
    first = bisect_left(hundredths, True, key=lambda step: ours(_at(point, step), alpha, "dense").costs().file_bytes <= most)
    return ours(_at(point, first), alpha, "dense")


def _as_large(point: Point) -> Design:
    """Return the widest uniformly narrower network whose file is no larger than that of our default reading."""
    most = _reconvene(point, average="mean", width="sqrt", sensitive="dense").costs().file_bytes
    narrower = (engine.uniform(point.family, share / 100) for share in range(99, 0, -1))
    return next(design for design in narrower if design.costs().file_bytes <= most)


def _at(point: Point, hundredths: int) -> Point:
    return replace(point, sparsity=hundredths / 100)


def _reconvene(point: Point, alpha: float = 1.0, **options: Any) -> Design:
    return engine.design(point.family.spec, point.seed, point.sparsity, point.family.options(alpha, **options))


def _filter_norm(case: Case) -> Plan:
    return engine.keep_filters(case.point.family, case.point.seed, _matched(case.point, str(MIDDLE)).widths)


def _searched(case: Case) -> Plan:
    family = case.point.family
    return search.searched(family, engine.macs(family.spec, ours(case.point, MIDDLE, "dense").widths), case.data, case.recipe)


def _permuted(point: Point) -> Design:
    spec, options = point.family.spec, point.family.options(1.0, width="sqrt", sensitive="masked")
    densities = [layer.density for layer in engine.design(spec, point.seed, point.sparsity, options).layers]
    order = torch.randperm(len(densities), generator=generator(point.seed, "permuted densities")).tolist()
    return engine.with_densities(spec, point.seed, [densities[index] for index in order], options)


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
            partial(_reconvene, average=average, width=width, sensitive=sensitive),
        )
        for average, width, sensitive in readings
    ]


def _catalogue() -> dict[str, Arm]:
    arms = [
        Arm("dense", "dense", "dense", partial(_uniform, multiplier=1.0)),
        Arm("unstructured", "unstructured", "unstructured", make=_unstructured),
        *_readings(),
    ]
    for alpha in ALPHAS:
        for sensitive in ("dense", "masked"):
            design = partial(ours, alpha=alpha, sensitive=sensitive)
            arms.append(Arm(f"ours {alpha} {sensitive}", f"α {alpha} {sensitive}", "ours", design))
    arms += [Arm(f"half of {alpha}", f"½ of ×{alpha}", "ours", partial(_halved, alpha=alpha)) for alpha in HALVED]
    arms.append(Arm("shrink", "all by √d", "shrink", partial(_reconvene, width="sqrt", sensitive="shrink")))
    arms += [Arm(f"narrower {share}", f"×{share}", "narrower", partial(_uniform, multiplier=share)) for share in NARROW]
    for alpha in ALPHAS:
        arms.append(
            Arm(f"narrower as {alpha}", f"×… as α {alpha}", "narrower", partial(_matched, key=str(alpha)), match=str(alpha))
        )
    arms.append(Arm("narrower in bytes", "×… in bytes", "narrower", _as_large))
    arms += [
        Arm("filter norm", "filter norm", "filter norm", make=_filter_norm, match=str(MIDDLE)),
        Arm("search", "search", "search", make=_searched),
        Arm("permuted", "permuted", "permuted", _permuted),
    ]
    return {arm.name: arm for arm in arms}


ARMS = _catalogue()
"""Every arm by name, in the table's order."""
