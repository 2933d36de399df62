from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.plan import (
    Candidate,
    Miss,
    Plan,
    impose,
    infeasible,
    judge,
    next_to_measure,
    settle,
    worst_miss,
)
from reconvene_agent.core.release import Latency

MIB = 2**20


def candidate(sparsity: float, memory: float = 10.0, p95: float | None = None, mib: float = 1.0) -> Candidate:
    latency = None if p95 is None else Latency(p95 / 2, p95, 9)
    return Candidate(sparsity, 1000, int(mib * MIB), 5000, memory, 10 * memory, latency)


def limits(latency: float | None = None, memory: float | None = None, mib: float | None = None) -> Budget:
    def limit(value: float | None) -> Limit | None:
        return None if value is None else Limit(value, "test")

    return Budget(latency_ms=limit(latency), memory_mb=limit(memory), model_mb=limit(mib))


@dataclass
class Bench:
    """Plays the measuring worker: ``truth`` holds the latency of every candidate."""

    candidates: list[Candidate]
    truth: list[float]
    budget: Budget
    measured: int = 0

    def plan(self) -> Plan:
        while (index := next_to_measure(self.candidates, self.budget)) is not None:
            assert self.candidates[index].latency_ms is None, "nothing is measured twice"
            latency = Latency(self.truth[index] / 2, self.truth[index], 9)
            self.candidates[index] = msgspec.structs.replace(self.candidates[index], latency_ms=latency)
            self.measured += 1
            assert self.measured <= len(self.candidates), "measuring must come to an end"
        return settle(self.candidates, self.budget)

    def fits(self, index: int) -> bool:
        full = candidate(0.0, self.candidates[index].memory_mb, self.truth[index], self.candidates[index].bytes / MIB)
        return worst_miss(full, self.budget) is None


costs = st.floats(0.5, 100.0)


@st.composite
def benches(draw: st.DrawFn) -> Bench:
    count = draw(st.integers(1, 40))
    truth = sorted(draw(st.lists(costs, min_size=count, max_size=count)), reverse=True)
    memory = draw(st.lists(costs, min_size=count, max_size=count))
    if draw(st.booleans()):
        memory.sort(reverse=True)
    candidates = [candidate(index / count, memory[index], mib=memory[index] / 4) for index in range(count)]
    budget = limits(*(draw(st.none() | costs) for _ in range(3)))
    return Bench(candidates, truth, budget)


@given(benches())
def test_the_choice_keeps_the_budget_and_was_measured(bench: Bench) -> None:
    plan = bench.plan()
    if plan.chosen is not None:
        assert bench.fits(plan.candidates.index(plan.chosen))
        assert plan.chosen.latency_ms is not None


@given(benches())
def test_no_feasible_candidate_that_prunes_less_is_passed_over(bench: Bench) -> None:
    plan = bench.plan()
    feasible = [index for index in range(len(bench.candidates)) if bench.fits(index)]
    assert (plan.chosen is None) == (not feasible)
    if plan.chosen is not None:
        assert plan.candidates.index(plan.chosen) == feasible[0]


@given(benches())
def test_few_are_measured(bench: Bench) -> None:
    bench.plan()
    assert bench.measured <= 2 + math.log2(len(bench.candidates))


@given(benches())
def test_exactly_one_of_choice_and_nearest_miss(bench: Bench) -> None:
    plan = bench.plan()
    assert (plan.chosen is None) != (plan.nearest_miss is None)


@st.composite
def hopeless(draw: st.DrawFn) -> Bench:
    """Draw candidates that are all too slow, some of them too large as well."""
    count = draw(st.integers(1, 40))
    falling = st.lists(costs, min_size=count, max_size=count).map(lambda values: sorted(values, reverse=True))
    truth, memory = draw(falling), draw(falling)
    budget = limits(latency=truth[-1] * draw(st.floats(0.1, 0.99)), memory=draw(st.floats(memory[-1], 200.0)))
    return Bench([candidate(index / count, memory[index]) for index in range(count)], truth, budget)


@given(hopeless())
def test_the_nearest_miss_is_nearest_in_truth(bench: Bench) -> None:
    miss = bench.plan().nearest_miss
    assert miss is not None
    full = [candidate(0.0, one.memory_mb, p95) for one, p95 in zip(bench.candidates, bench.truth, strict=True)]
    misses = [found for one in full if (found := worst_miss(one, bench.budget)) is not None]
    assert miss.value / miss.allowed == min(found.value / found.allowed for found in misses)


def test_a_limit_is_met_when_it_is_just_reached() -> None:
    assert judge(candidate(0.5, memory=10.0, p95=5.0, mib=1.0), limits(5.0, 10.0, 1.0)).feasible is True


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        (limits(latency=4.0), "latency_ms 5 is over the limit of 4"),
        (limits(memory=9.0), "memory_mb 10 is over the limit of 9"),
        (limits(mib=0.5), "model_mb 1 is over the limit of 0.5"),
        (limits(latency=4.9, memory=5.0), "memory_mb 10 is over the limit of 5"),
    ],
)
def test_a_verdict_names_the_limit_that_is_missed_most(budget: Budget, why: str) -> None:
    verdict = judge(candidate(0.5, p95=5.0), budget)
    assert (verdict.feasible, verdict.why) == (False, why)


def test_the_training_memory_counts_too() -> None:
    verdict = judge(candidate(0.5, memory=10.0), Budget(training_memory_mb=Limit(99.0, "test")))
    assert (verdict.feasible, verdict.why) == (False, "training_memory_mb 100 is over the limit of 99")


def test_without_a_measurement_the_verdict_stays_open() -> None:
    assert judge(candidate(0.5), limits(latency=5.0)).feasible is None
    assert judge(candidate(0.5, memory=10.0), limits(latency=5.0, memory=9.0)).feasible is False


def test_the_dense_model_is_tried_first() -> None:
    assert next_to_measure([candidate(0.0), candidate(0.5), candidate(0.9)], limits(latency=5.0)) == 0


def test_what_misses_on_paper_is_never_measured() -> None:
    bench = Bench([candidate(0.0, memory=99.0), candidate(0.5), candidate(0.9)], [9.0, 4.0, 1.0], limits(5.0, 50.0))
    plan = bench.plan()
    assert plan.candidates[0].latency_ms is None
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, bench.measured) == (0.5, 1)


def test_without_a_latency_limit_only_the_choice_is_measured() -> None:
    bench = Bench([candidate(0.0, memory=99.0), candidate(0.5), candidate(0.9)], [9.0, 4.0, 1.0], limits(memory=50.0))
    assert bench.plan().chosen == judge(bench.candidates[1], bench.budget)
    assert bench.measured == 1


def test_nothing_to_measure_where_paper_already_says_no() -> None:
    assert next_to_measure([candidate(0.0, memory=99.0), candidate(0.9, memory=60.0)], limits(5.0, 50.0)) is None
    assert next_to_measure([], limits(5.0)) is None


def test_the_nearest_miss_names_candidate_limit_and_figures() -> None:
    plan = settle([candidate(0.0, p95=50.0), candidate(0.5, p95=20.0), candidate(0.9, p95=6.0)], limits(latency=5.0))
    assert plan.chosen is None
    assert plan.nearest_miss == Miss(0.9, "latency_ms", 6.0, 5.0)


def test_among_equal_misses_the_one_that_prunes_least_is_named() -> None:
    plan = settle([candidate(0.2, p95=6.0), candidate(0.9, p95=6.0)], limits(latency=5.0))
    assert plan.nearest_miss == Miss(0.2, "latency_ms", 6.0, 5.0)


def test_a_small_miss_on_paper_does_not_hide_a_latency_that_is_hopeless() -> None:
    bench = Bench([candidate(0.0, memory=51.0), candidate(0.9, memory=10.0)], [90.0, 10.0], limits(latency=5.0, memory=50.0))
    assert bench.plan().nearest_miss == Miss(0.9, "latency_ms", 10.0, 5.0)


def test_infeasible_is_one_line_with_the_miss_and_what_to_do() -> None:
    line = infeasible(Miss(0.98, "latency_ms", 6.0, 5.0))
    assert line == (
        "no candidate fits the budget: the nearest, sparsity 0.98, has latency_ms 6 where 5 is allowed; "
        "raise that limit or ship a smaller model"
    )


@pytest.mark.parametrize(("p95", "miss"), [(4.0, None), (6.0, Miss(0.7, "latency_ms", 6.0, 5.0))])
def test_an_imposed_sparsity_is_chosen_and_its_miss_told(p95: float, miss: Miss | None) -> None:
    plan = impose(candidate(0.7, p95=p95), limits(latency=5.0))
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, plan.chosen.feasible, plan.nearest_miss) == (0.7, miss is None, miss)
    assert plan.candidates == (plan.chosen,)
