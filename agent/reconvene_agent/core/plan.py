"""The plan: candidates with what they cost, which one to measure next, and the choice.

Pure: measuring and pruning belong to the worker. The rule: the lowest sparsity that fits the budget is chosen, never
more pruning than the board demands.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reconvene_agent.core.budget import Budget
from reconvene_agent.core.release import Latency


class Candidate(Struct, frozen=True):
    """One sparsity and what the model pruned to it costs.

    ``bytes`` (of the ONNX file), ``memory_mb`` (inference) and ``training_memory_mb`` are computed from shapes;
    ``latency_ms`` is measured, and null where measuring could not change the choice. ``feasible`` is null while unknown;
    ``why`` says what a verdict rests on.
    """

    sparsity: float
    params: int
    bytes: int
    macs: int
    memory_mb: float
    training_memory_mb: float
    latency_ms: Latency | None = None
    feasible: bool | None = None
    why: str = ""


class Miss(Struct, frozen=True):
    """The candidate nearest to the budget when none fits: which limit binds, and by how much it is exceeded."""

    sparsity: float
    limit: str
    value: float
    allowed: float


class Plan(Struct, frozen=True):
    """A finished plan. Exactly one of ``chosen`` and ``nearest_miss`` is set, unless the sparsity was imposed."""

    budget: Budget
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    nearest_miss: Miss | None


def costs(candidate: Candidate) -> dict[str, float]:
    """Return what a candidate costs by the budget's names for it; the latency only where it was measured."""
    known = {
        "memory_mb": candidate.memory_mb,
        "training_memory_mb": candidate.training_memory_mb,
        "model_mb": candidate.bytes / 2**20,
    }
    if candidate.latency_ms is not None:
        known["latency_ms"] = candidate.latency_ms.p95
    return known


def worst_miss(candidate: Candidate, budget: Budget) -> Miss | None:
    """Return the limit that a candidate exceeds by the largest factor, or None when it exceeds none that is known."""
    known = costs(candidate)
    misses = [
        Miss(candidate.sparsity, name, known[name], limit.value)
        for name, limit in budget.limits()
        if name in known and known[name] > limit.value
    ]
    return max(misses, key=lambda miss: miss.value / miss.allowed, default=None)


def judge(candidate: Candidate, budget: Budget) -> Candidate:
    """Return the candidate with its verdict: false as soon as a known cost is too high, true once all are known and fit."""
    miss = worst_miss(candidate, budget)
    if miss is not None:
        why = f"{miss.limit} {miss.value:.4g} is over the limit of {miss.allowed:.4g}"
        return msgspec.structs.replace(candidate, feasible=False, why=why)
    if budget.latency_ms is not None and candidate.latency_ms is None:
        return msgspec.structs.replace(candidate, feasible=None, why="latency not measured: it cannot change the choice")
    return msgspec.structs.replace(candidate, feasible=True, why="within every limit")


def next_to_measure(candidates: Sequence[Candidate], budget: Budget) -> int | None:
    """Return the index of the candidate to measure next, or None when the choice is settled.

    Candidates stand in ascending sparsity and latency falls with sparsity, so this bisects between the last one found
    too slow and the first one found to fit. The choice itself is always measured.
    """
    judged = [judge(candidate, budget) for candidate in candidates]
    fits = next((i for i, candidate in enumerate(judged) if candidate.feasible), len(judged))
    open_before = [i for i, candidate in enumerate(judged[:fits]) if candidate.feasible is None]
    slow = [i for i, candidate in enumerate(judged[:fits]) if candidate.feasible is False and candidate.latency_ms is not None]
    open_between = [i for i in open_before if i > max(slow, default=-1)]
    if open_between:
        return open_between[(len(open_between) - 1) // 2] if fits < len(judged) or slow else open_between[0]
    if fits < len(judged) and judged[fits].latency_ms is None:
        return fits
    return None


def settle(candidates: Sequence[Candidate], budget: Budget) -> Plan:
    """Judge all candidates and choose: the lowest feasible sparsity, else the nearest miss.

    The nearest miss is the candidate whose worst limit is exceeded by the smallest factor; among equals, the one that
    prunes least.
    """
    judged = tuple(judge(candidate, budget) for candidate in candidates)
    chosen = next((candidate for candidate in judged if candidate.feasible), None)
    nearest = min(_misses(judged, budget), key=lambda miss: miss.value / miss.allowed, default=None)
    return Plan(budget, judged, chosen, None if chosen else nearest)


def _misses(candidates: Sequence[Candidate], budget: Budget) -> list[Miss]:
    """Return what each candidate misses most.

    One that was not measured is at least as slow as those that prune more; where that outweighs its known misses, it is
    left out, since theirs say the same and are known.
    """
    misses: list[Miss] = []
    slowest = 0.0
    for candidate in reversed(candidates):
        if candidate.latency_ms is not None and budget.latency_ms is not None:
            slowest = max(slowest, candidate.latency_ms.p95 / budget.latency_ms.value)
        miss = worst_miss(candidate, budget)
        if miss is not None and (candidate.latency_ms is not None or miss.value / miss.allowed > slowest):
            misses.append(miss)
    return misses[::-1]


def impose(candidate: Candidate, budget: Budget) -> Plan:
    """Return the plan of a sparsity that the user imposed: it is chosen, and where it misses the budget it says so."""
    judged = judge(candidate, budget)
    miss = worst_miss(candidate, budget)
    return Plan(budget, (judged,), judged, miss)


def infeasible(miss: Miss) -> str:
    """Return the one line for INFEASIBLE."""
    return (
        f"no candidate fits the budget: the nearest, sparsity {miss.sparsity:g}, has {miss.limit} {miss.value:.4g} "
        f"where {miss.allowed:.4g} is allowed; raise that limit or ship a smaller model"
    )
