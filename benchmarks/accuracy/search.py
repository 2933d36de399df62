"""A minimal architecture search, with its seconds charged: random widths of equal MACs, a proxy, successive halving.

The proxy is SynFlow (Tanaka et al. 2020, arXiv 2006.05467), one pass. The halving judges on training images set apart, never
on the held-out ones; the winner is then trained on all training images like every other arm.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from accuracy import engine
from accuracy.engine import Family, Plan, Widths
from accuracy.training import Recipe, train
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.data.dataset import Dataset, Part
from reconvene_agent.worker.models.initial import generator

CANDIDATES = 24
SHARES = (0.25, 1.0)
TOLERANCE = 0.1
ROUNDS = ((4, 0.5), (2, 1.0))
"""Survivors of each ranking and the epochs that they are trained before the next."""
APART = 0.2
MAX_DRAWS = 1000


@dataclass(frozen=True)
class _Candidate:
    widths: Widths
    score: float


def searched(family: Family, target_macs: int, data: Dataset, recipe: Recipe) -> Plan:
    """Return the best network found among random ones with about ``target_macs``."""
    started = time.perf_counter()
    drawn = [_scored(family, widths, recipe) for widths in _draw(family, target_macs, recipe)]
    apart = _set_apart(data, recipe.seed)
    for survivors, epochs in ROUNDS:
        drawn = sorted(drawn, key=lambda each: each.score, reverse=True)[:survivors]
        short = replace(recipe, epochs=epochs)
        drawn = [replace(each, score=_judged(family, each.widths, apart, short)) for each in drawn]
    best = max(drawn, key=lambda each: each.score)
    seconds = time.perf_counter() - started
    found = engine.build(family.spec, recipe.seed, engine.with_widths(family.spec, best.widths))
    return replace(found, search_seconds=seconds)


def _draw(family: Family, target: int, recipe: Recipe) -> list[Widths]:
    """Draw a share for each group, then shift all shares by a common factor, within their range, until the MACs fit."""
    names = [group.name for group in engine.free_groups(family.spec)]
    random = generator(recipe.seed, "search")
    low, high = SHARES
    found: list[Widths] = []
    for _ in range(MAX_DRAWS):
        recipe.check()
        shares = low + (high - low) * torch.rand(len(names), generator=random)
        smallest, largest = math.log(low / high), math.log(high / low)
        for _ in range(12):
            factor = (smallest + largest) / 2
            clipped = (shares * math.exp(factor)).clamp(low, high).tolist()
            widths = engine.scaled(family, dict(zip(names, clipped, strict=True)))
            ratio = engine.macs(family.spec, widths) / target
            if abs(ratio - 1) <= TOLERANCE / 4:
                break
            smallest, largest = (factor, largest) if ratio < 1 else (smallest, factor)
        if abs(ratio - 1) <= TOLERANCE:
            found.append(widths)
        if len(found) == CANDIDATES:
            break
    if not found:
        raise RuntimeError(
            f"no network of {family.spec.architecture} with widths of {low:g} to {high:g} has {target:,} MACs within 10 %"
        )
    return found


def _scored(family: Family, widths: Widths, recipe: Recipe) -> _Candidate:
    recipe.check()
    plan = engine.build(family.spec, recipe.seed, engine.with_widths(family.spec, widths))
    return _Candidate(widths, synflow(plan.module, family.spec))


def synflow(module: nn.Module, spec: ModelSpec) -> float:
    """Return the logarithm of the sum of |w · ∂R/∂w|, R being the sum of outputs for ones, with all weights made positive."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    module(torch.ones(1, *spec.input, dtype=torch.float64)).sum().backward()
    total = sum(float((p.detach() * p.grad).abs().sum()) for p in module.parameters() if p.grad is not None)
    return math.log(total)


def _judged(family: Family, widths: Widths, data: Dataset, recipe: Recipe) -> float:
    plan = engine.build(family.spec, recipe.seed, engine.with_widths(family.spec, widths))
    return train(plan.module, plan.masks, data, recipe).accuracy


def _set_apart(data: Dataset, seed: int) -> Dataset:
    """Return the training images alone, divided in two: to train on, and to judge by."""
    order = torch.randperm(len(data.train), generator=generator(seed, "search split")).numpy()
    cut = max(2, round(APART * len(order)))
    judge, rest = (_part(data.train, np.sort(numbers)) for numbers in (order[:cut], order[cut:]))
    return Dataset(rest, judge, data.labels, data.skipped)


def _part(part: Part, numbers: np.ndarray) -> Part:
    return Part(part.inputs[numbers], part.classes[numbers])
