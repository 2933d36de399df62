from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

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
    named,
    next_step,
    settle,
    worst_miss,
)
from reconvene_agent.core.release import Latency

MIB = 2**20


def candidate(
    sparsity: float, memory: float = 10.0, p95: float | None = None, mib: float = 1.0, multiplier: float = 1.0
) -> Candidate:
    latency = None if p95 is None else Latency(p95 / 2, p95, 9)
    return Candidate(sparsity, multiplier, 1000, int(mib * MIB), 5000, memory, 10 * memory, latency)


def limits(latency: float | None = None, memory: float | None = None, mib: float | None = None) -> Budget:
    def limit(value: float | None) -> Limit | None:
        return None if value is None else Limit(value, "test")

    return Budget(latency_ms=limit(latency), memory_mb=limit(memory), model_mb=limit(mib))


@dataclass
class Bench:
    """Plays the worker that costs and measures: ``paper`` and ``truth`` hold every candidate of every width."""

    paper: list[list[Candidate]]
    truth: list[list[float]]
    budget: Budget
    costed: int = 0
    measured: int = 0

    def plan(self) -> Plan:
        columns: list[list[Candidate] | None] = [None] * len(self.paper)
        while (step := next_step(columns, self.budget)) is not None:
            index, row = step
            column = columns[index]
            if column is None or row is None:
                assert column is None, "nothing is costed twice"
                columns[index] = list(self.paper[index])
                self.costed += 1
                continue
            assert column[row].latency_ms is None, "nothing is measured twice"
            column[row] = self.true(index, row)
            self.measured += 1
        return settle(columns, self.budget)

    def true(self, index: int, row: int) -> Candidate:
        p95 = self.truth[index][row]
        return msgspec.structs.replace(self.paper[index][row], latency_ms=Latency(p95 / 2, p95, 9))

    def preferred(self) -> list[tuple[int, int]]:
        """Return width and row of what the rule may choose, the best first."""
        on_paper = msgspec.structs.replace(self.budget, latency_ms=None)
        found: list[tuple[int, int]] = []
        for index, column in enumerate(self.paper):
            rows = [row for row, each in enumerate(column) if worst_miss(each, on_paper) is None]
            found += [(index, row) for row in (rows if index == len(self.paper) - 1 else rows[:1])]
        return found


def single(candidates: list[Candidate], truth: list[float], budget: Budget) -> Bench:
    """Return a bench with one width."""
    return Bench([candidates], [truth], budget)


costs = st.floats(0.5, 100.0)


@st.composite
def benches(draw: st.DrawFn) -> Bench:
    """Draw costs on paper that fall with width and sparsity, and latencies that fall in the order of preference."""
    widths, rows = draw(st.integers(1, 9)), draw(st.integers(1, 12))

    def falling(count: int) -> list[float]:
        return sorted(draw(st.lists(costs, min_size=count, max_size=count)), reverse=True)

    by_width, by_row = falling(widths), falling(rows)
    paper = [
        [candidate(row / rows, by_width[index] * by_row[row], mib=by_row[row], multiplier=1 / (index + 1)) for row in range(rows)]
        for index in range(widths)
    ]
    budget = limits(draw(st.none() | costs), draw(st.none() | st.floats(0.5, 5000.0)), draw(st.none() | costs))
    bench = Bench(paper, [[100.0] * rows for _ in range(widths)], budget)
    order = bench.preferred()
    for p95, (index, row) in zip(falling(len(order)), order, strict=True):
        bench.truth[index][row] = p95
    return bench


@given(benches())
def test_the_choice_keeps_the_budget_and_was_measured(bench: Bench) -> None:
    chosen = bench.plan().chosen
    if chosen is not None:
        assert chosen.latency_ms is not None
        assert worst_miss(chosen, bench.budget) is None


@given(benches())
def test_nothing_that_fits_and_asks_less_is_passed_over(bench: Bench) -> None:
    chosen = bench.plan().chosen
    fits = [each for each in (bench.true(*place) for place in bench.preferred()) if worst_miss(each, bench.budget) is None]
    assert (chosen is None) == (not fits)
    if chosen is not None:
        assert (chosen.width_multiplier, chosen.sparsity) == (fits[0].width_multiplier, fits[0].sparsity)


@given(benches())
def test_little_is_costed_and_less_measured(bench: Bench) -> None:
    bench.plan()
    assert bench.costed <= 2 + math.log2(len(bench.paper))
    assert bench.measured <= 4 + math.log2(len(bench.paper)) + math.log2(len(bench.paper[0]))


@given(benches(), st.randoms(use_true_random=False))
def test_whatever_the_latencies_are_the_search_ends_and_keeps_the_budget(bench: Bench, random: Random) -> None:
    bench.truth = [[random.uniform(0.5, 100.0) for _ in column] for column in bench.truth]
    chosen = bench.plan().chosen
    assert chosen is None or worst_miss(chosen, bench.budget) is None


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
    return single([candidate(index / count, memory[index]) for index in range(count)], truth, budget)


@given(hopeless())
def test_the_nearest_miss_is_nearest_in_truth(bench: Bench) -> None:
    miss = bench.plan().nearest_miss
    assert miss is not None
    full = [candidate(0.0, one.memory_mb, p95) for one, p95 in zip(bench.paper[0], bench.truth[0], strict=True)]
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
    assert next_step([None, None, None], limits(latency=5.0)) == (0, None)
    assert next_step([[candidate(0.0), candidate(0.5), candidate(0.9)], None, None], limits(latency=5.0)) == (0, 0)


def test_what_misses_on_paper_is_never_measured() -> None:
    bench = single([candidate(0.0, memory=99.0), candidate(0.5), candidate(0.9)], [9.0, 4.0, 1.0], limits(5.0, 50.0))
    plan = bench.plan()
    assert plan.candidates[0].latency_ms is None
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, bench.measured) == (0.5, 1)


def test_without_a_latency_limit_only_the_choice_is_measured() -> None:
    bench = single([candidate(0.0, memory=99.0), candidate(0.5), candidate(0.9)], [9.0, 4.0, 1.0], limits(memory=50.0))
    assert bench.plan().chosen == judge(bench.true(0, 1), bench.budget)
    assert bench.measured == 1


def test_nothing_to_measure_where_paper_already_says_no() -> None:
    assert next_step([[candidate(0.0, memory=99.0), candidate(0.9, memory=60.0)]], limits(5.0, 50.0)) is None
    assert next_step([], limits(5.0)) is None


def test_the_nearest_miss_names_candidate_limit_and_figures() -> None:
    plan = settle([[candidate(0.0, p95=50.0), candidate(0.5, p95=20.0), candidate(0.9, p95=6.0)]], limits(latency=5.0))
    assert plan.chosen is None
    assert plan.nearest_miss == Miss(0.9, 1.0, "latency_ms", 6.0, 5.0)


def test_among_equal_misses_the_one_that_prunes_least_is_named() -> None:
    plan = settle([[candidate(0.2, p95=6.0), candidate(0.9, p95=6.0)]], limits(latency=5.0))
    assert plan.nearest_miss == Miss(0.2, 1.0, "latency_ms", 6.0, 5.0)


def test_a_small_miss_on_paper_does_not_hide_a_latency_that_is_hopeless() -> None:
    bench = single([candidate(0.0, memory=51.0), candidate(0.9, memory=10.0)], [90.0, 10.0], limits(latency=5.0, memory=50.0))
    assert bench.plan().nearest_miss == Miss(0.9, 1.0, "latency_ms", 10.0, 5.0)


def wide_and_narrow() -> Bench:
    """Return two widths, of which the wide one needs a sparsity of 0.9 to fit into 20 MiB, and the narrow one 0.5."""
    wide = [candidate(0.0, 90.0), candidate(0.5, 40.0), candidate(0.9, 9.0)]
    narrow = [candidate(each.sparsity, each.memory_mb / 2, multiplier=0.5) for each in wide]
    return Bench([wide, narrow], [[9.0, 8.0, 7.0], [6.0, 5.0, 4.0]], limits(latency=100.0, memory=20.0))


@pytest.mark.parametrize(
    ("latency", "multiplier", "sparsity", "costed"),
    [(7.0, 1.0, 0.9, 1), (6.9, 0.5, 0.5, 2), (5.0, 0.5, 0.5, 2), (4.9, 0.5, 0.9, 2)],
)
def test_the_multiplier_answers_latency_and_the_sparsity_memory(
    latency: float, multiplier: float, sparsity: float, costed: int
) -> None:
    bench = wide_and_narrow()
    bench.budget = limits(latency, 20.0)
    chosen = bench.plan().chosen
    assert chosen is not None
    assert (chosen.width_multiplier, chosen.sparsity, bench.costed) == (multiplier, sparsity, costed)


def test_a_miss_of_a_narrower_network_names_its_width() -> None:
    bench = wide_and_narrow()
    bench.budget = limits(3.0, 20.0)
    miss = bench.plan().nearest_miss
    assert miss == Miss(0.9, 0.5, "latency_ms", 4.0, 3.0)
    assert "the nearest, width ×0.5, sparsity 0.9, has latency_ms 4 where 3 is allowed" in infeasible(miss)


def test_the_full_width_goes_without_saying() -> None:
    assert [named(1.0, 0.5), named(0.25, 0.0)] == ["sparsity 0.5", "width ×0.25, sparsity 0"]


def test_infeasible_is_one_line_with_the_miss_and_what_to_do() -> None:
    line = infeasible(Miss(0.98, 1.0, "latency_ms", 6.0, 5.0))
    assert line == (
        "no candidate fits the budget: the nearest, sparsity 0.98, has latency_ms 6 where 5 is allowed; "
        "raise that limit or ship a smaller model"
    )


@pytest.mark.parametrize(("p95", "miss"), [(4.0, None), (6.0, Miss(0.7, 1.0, "latency_ms", 6.0, 5.0))])
def test_an_imposed_sparsity_is_chosen_and_its_miss_told(p95: float, miss: Miss | None) -> None:
    plan = impose(candidate(0.7, p95=p95), limits(latency=5.0))
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, plan.chosen.feasible, plan.nearest_miss) == (0.7, miss is None, miss)
    assert plan.candidates == (plan.chosen,)
