"""The plan: candidates with what they cost, what to find out next, and the choice.

Pure: measuring and pruning belong to the worker. A candidate has two knobs. The width multiplier answers latency, the
sparsity answers memory, and the rule is never more of either than the budget demands:

1. A width multiplier demands the lowest sparsity at which everything but the latency is within its limit.
2. The largest width multiplier is chosen that is fast enough at the sparsity that it demands.
3. Where none is, the smallest one goes on to the lowest sparsity that is fast enough.

What is about to be chosen is verified: measured once more, longer, its memory too. What then misses the budget is refused, and
the search goes on by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from reconvene_agent.core.budget import LATENCIES, Budget
from reconvene_agent.core.measuring import Conditions
from reconvene_agent.core.release import Latency


class Candidate(Struct, frozen=True):
    """One width multiplier and sparsity, and what the model made by them costs.

    ``bytes`` (of the ONNX file), ``memory_mb`` (inference) and ``training_memory_mb`` (the least with which it can be trained)
    are computed from shapes;
    ``latency_ms`` is measured, and null where measuring could not change the choice. ``feasible`` is null while unknown;
    ``why`` says what a verdict rests on.

    Attributes:
        conditions: what else went on while the latency was measured.
        repeats: how often that was measured again.
        doubts: why the figures may be off, one clause each.
        verified: measured once more as the choice, longer and in a fresh process.
        memory_measured_mb: what that process took for inference; null where it was not measured.
    """

    sparsity: float
    width_multiplier: float
    params: int
    bytes: int
    macs: int
    memory_mb: float
    training_memory_mb: float
    latency_ms: Latency | None = None
    feasible: bool | None = None
    why: str = ""
    conditions: Conditions | None = None
    repeats: int = 0
    doubts: tuple[str, ...] = ()
    verified: bool = False
    memory_measured_mb: float | None = None


class Miss(Struct, frozen=True):
    """The candidate nearest to the budget when none fits: which limit binds, and by how much it is exceeded."""

    sparsity: float
    width_multiplier: float
    limit: str
    value: float
    allowed: float


class Plan(Struct, frozen=True):
    """A finished plan. Exactly one of ``chosen`` and ``nearest_miss`` is set, unless the knobs were imposed."""

    budget: Budget
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    nearest_miss: Miss | None


def costs(candidate: Candidate) -> dict[str, float]:
    """Return what a candidate costs by the budget's names for it: as measured where it was, the latency only then."""
    measured = candidate.memory_measured_mb
    known = {
        "memory_mb": candidate.memory_mb if measured is None else measured,
        "training_memory_mb": candidate.training_memory_mb,
        "model_mb": candidate.bytes / 2**20,
    }
    if candidate.latency_ms is not None:
        known["latency_ms"] = candidate.latency_ms.p95
        known["latency_p50_ms"] = candidate.latency_ms.p50
    return known


def worst_miss(candidate: Candidate, budget: Budget) -> Miss | None:
    """Return the limit that a candidate exceeds by the largest factor, or None when it exceeds none that is known."""
    known = costs(candidate)
    misses = [
        Miss(candidate.sparsity, candidate.width_multiplier, name, known[name], limit.value)
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
    if candidate.latency_ms is None and limits_latency(budget):
        return msgspec.structs.replace(candidate, feasible=None, why="latency not measured: it cannot change the choice")
    return msgspec.structs.replace(candidate, feasible=True, why="within every limit")


def limits_latency(budget: Budget) -> bool:
    """Return whether there is a limit that only measuring can tell."""
    return any(name in LATENCIES for name, _ in budget.limits())


Columns = Sequence[Sequence[Candidate] | None]
"""The candidates of each width multiplier, from the largest down, by ascending sparsity; None where nobody has asked yet."""


class Step(NamedTuple):
    """What to find out: without a row, what a column's candidates cost on paper; else the latency of that candidate.

    ``verify`` means to measure it as the choice: longer, and its memory too.
    """

    column: int
    row: int | None = None
    verify: bool = False


def next_step(columns: Columns, budget: Budget) -> Step | None:
    """Return what to find out next, or None when the choice is settled.

    Latency is taken to fall with the width multiplier, at the sparsities that it demands, and with sparsity. So this bisects,
    and what cannot be the choice is neither scored nor measured. The choice itself is always verified.
    """
    verdicts = [None if column is None else _verdict(column, budget) for column in columns]
    fits = verdicts.index(True) if True in verdicts else len(columns)
    misses = max((i for i, verdict in enumerate(verdicts[:fits]) if verdict is False), default=-1)
    if fits - misses > 1:
        # The widest comes first: most often it will do.
        index = 0 if misses < 0 and fits == len(columns) else (misses + fits) // 2
        return Step(index, _demanded(columns[index], budget))
    if fits < len(columns):
        return _verification(fits, columns[fits] or (), _demanded(columns[fits], budget))
    if not columns:
        return None
    column = columns[-1] or ()
    row = _next_row(column, budget)
    return _verification(len(columns) - 1, column, _first_fit(column, budget)) if row is None else Step(len(columns) - 1, row)


def _verification(index: int, column: Sequence[Candidate], row: int | None) -> Step | None:
    """Return the step that verifies a candidate, or None where there is none or it has been."""
    return None if row is None or column[row].verified else Step(index, row, verify=True)


def _demanded(column: Sequence[Candidate] | None, budget: Budget) -> int | None:
    """Return the row of the lowest sparsity at which nothing but perhaps the latency misses the budget; None without one."""
    on_paper = msgspec.structs.replace(budget, **dict.fromkeys(LATENCIES))
    return next((row for row, candidate in enumerate(column or ()) if worst_miss(candidate, on_paper) is None), None)


def _verdict(column: Sequence[Candidate], budget: Budget) -> bool | None:
    """Return whether a width multiplier fits the budget at the sparsity that it demands; None while that is unknown."""
    row = _demanded(column, budget)
    return False if row is None else judge(column[row], budget).feasible


def _first_fit(column: Sequence[Candidate], budget: Budget) -> int | None:
    return next((row for row, candidate in enumerate(column) if judge(candidate, budget).feasible), None)


def _next_row(candidates: Sequence[Candidate], budget: Budget) -> int | None:
    """Return the row of one column to measure next: bisect between the last found too slow and the first found to fit."""
    judged = [judge(candidate, budget) for candidate in candidates]
    fits = next((i for i, candidate in enumerate(judged) if candidate.feasible), len(judged))
    slow = [i for i, candidate in enumerate(judged[:fits]) if candidate.feasible is False and candidate.latency_ms is not None]
    unknown = [i for i, candidate in enumerate(judged[:fits]) if candidate.feasible is None and i > max(slow, default=-1)]
    return unknown[(len(unknown) - 1) // 2] if unknown else None


def settle(columns: Columns, budget: Budget) -> Plan:
    """Judge all candidates that were costed and choose by the rule, else name the nearest miss.

    The nearest miss is the candidate whose worst limit is exceeded by the smallest factor; among equals, the widest that
    prunes least.
    """
    judged = [[judge(candidate, budget) for candidate in column] for column in columns if column is not None]
    known = tuple(candidate for column in judged for candidate in column)
    rows = [(column, _demanded(column, budget)) for column in judged]
    chosen = next((column[row] for column, row in rows if row is not None and column[row].feasible), None)
    if chosen is None and judged:
        row = _first_fit(judged[-1], budget)
        chosen = None if row is None else judged[-1][row]
    if chosen is not None:
        return Plan(budget, known, chosen, None)
    misses = [miss for column in judged for miss in _misses(column, budget)]
    return Plan(budget, known, None, min(misses, key=lambda miss: miss.value / miss.allowed, default=None))


def _misses(candidates: Sequence[Candidate], budget: Budget) -> list[Miss]:
    """Return what each candidate of a column misses most.

    One that was not measured is at least as slow as those that prune more; where that outweighs its known misses, it is
    left out, since theirs say the same and are known.
    """
    misses: list[Miss] = []
    slowest = 0.0
    for candidate in reversed(candidates):
        known = costs(candidate)
        over = [known[name] / limit.value for name, limit in budget.limits() if name in LATENCIES and name in known]
        slowest = max(slowest, *over) if over else slowest
        miss = worst_miss(candidate, budget)
        if miss is not None and (candidate.latency_ms is not None or miss.value / miss.allowed > slowest):
            misses.append(miss)
    return misses[::-1]


def impose(candidate: Candidate, budget: Budget) -> Plan:
    """Return the plan of knobs that the user imposed: it is chosen, and where it misses the budget it says so."""
    judged = judge(candidate, budget)
    miss = worst_miss(candidate, budget)
    return Plan(budget, (judged,), judged, miss)


def named(width_multiplier: float, sparsity: float) -> str:
    """Return what a candidate is called in messages."""
    width = "" if width_multiplier == 1.0 else f"width ×{width_multiplier:g}, "
    return f"{width}sparsity {sparsity:g}"


def reservations(plan: Plan) -> str:
    """Return the one line that says why the verdict may be off, empty where there is no reason to think so."""
    miss = plan.nearest_miss
    decisive = plan.chosen or next((each for each in plan.candidates if miss is not None and _is_of(each, miss)), None)
    if decisive is None or not decisive.doubts:
        return ""
    again = f", although measured {decisive.repeats + 1} times" if decisive.repeats else ""
    name = named(decisive.width_multiplier, decisive.sparsity)
    return f"the figures of {name} are in doubt{again}: {'; '.join(decisive.doubts)}"


def _is_of(candidate: Candidate, miss: Miss) -> bool:
    return (candidate.width_multiplier, candidate.sparsity) == (miss.width_multiplier, miss.sparsity)


def infeasible(miss: Miss) -> str:
    """Return the one line for INFEASIBLE."""
    return (
        f"no candidate fits the budget: the nearest, {named(miss.width_multiplier, miss.sparsity)}, "
        f"has {miss.limit} {miss.value:.4g} where {miss.allowed:.4g} is allowed; raise that limit or ship a smaller model"
    )
