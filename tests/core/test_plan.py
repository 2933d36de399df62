from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
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
    Step,
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
    """Plays the worker that costs, measures and verifies; its tables hold every candidate of every width.

    A first measurement shows ``truth`` times ``flattery``, a verification ``truth``; memory is found to be what was computed
    times ``weight``.
    """

    paper: list[list[Candidate]]
    truth: list[list[float]]
    budget: Budget
    flattery: list[list[float]] | None = None
    weight: list[list[float]] | None = None
    costed: int = 0
    measured: int = 0
    verified: list[tuple[int, int]] = field(default_factory=list)

    def plan(self) -> Plan:
        columns: list[list[Candidate] | None] = [None] * len(self.paper)
        while (step := next_step(columns, self.budget)) is not None:
            index, row, verify = step
            column = columns[index]
            if column is None or row is None:
                assert column is None, "nothing is costed twice"
                columns[index] = list(self.paper[index])
                self.costed += 1
            elif verify:
                assert (index, row) not in self.verified, "nothing is verified twice"
                column[row] = self.true(index, row)
                self.verified.append((index, row))
            else:
                assert column[row].latency_ms is None, "nothing is measured twice"
                shown = self.truth[index][row] * (1.0 if self.flattery is None else self.flattery[index][row])
                column[row] = msgspec.structs.replace(column[row], latency_ms=Latency(shown / 2, shown, 9))
                self.measured += 1
        return settle(columns, self.budget)

    def true(self, index: int, row: int) -> Candidate:
        """Return a candidate as it is found when it is verified."""
        p95, paper = self.truth[index][row], self.paper[index][row]
        memory = paper.memory_mb * (1.0 if self.weight is None else self.weight[index][row])
        return msgspec.structs.replace(paper, latency_ms=Latency(p95 / 2, p95, 9), verified=True, memory_measured_mb=memory)

    def preferred(self) -> list[tuple[int, int]]:
        """Return width and row of what the rule may choose by what is true, the best first."""
        but_latency = msgspec.structs.replace(self.budget, latency_ms=None)
        found: list[tuple[int, int]] = []
        for index, column in enumerate(self.paper):
            rows = [row for row in range(len(column)) if keeps(self.true(index, row), but_latency)]
            found += [(index, row) for row in (rows if index == len(self.paper) - 1 else rows[:1])]
        return found

    def best(self) -> tuple[float, float] | None:
        """Return the knobs of what the rule chooses by what is true."""
        fits = [each for each in (self.true(*place) for place in self.preferred()) if keeps(each, self.budget)]
        return (fits[0].width_multiplier, fits[0].sparsity) if fits else None


def keeps(candidate: Candidate, budget: Budget) -> bool:
    """Return whether what was measured keeps the budget, counted here and not by what is tested."""
    assert candidate.latency_ms is not None
    assert candidate.memory_measured_mb is not None
    taken = (candidate.latency_ms.p95, candidate.memory_measured_mb, candidate.bytes / MIB)
    allowed = (budget.latency_ms, budget.memory_mb, budget.model_mb)
    return all(limit is None or value <= limit.value for value, limit in zip(taken, allowed, strict=True))


def knobs(chosen: Candidate | None) -> tuple[float, float] | None:
    return None if chosen is None else (chosen.width_multiplier, chosen.sparsity)


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
def test_the_choice_keeps_the_budget_and_was_verified(bench: Bench) -> None:
    chosen = bench.plan().chosen
    assert chosen is None or (chosen.verified and keeps(chosen, bench.budget))


@given(benches())
def test_nothing_that_fits_and_asks_less_is_passed_over(bench: Bench) -> None:
    assert knobs(bench.plan().chosen) == bench.best()


@given(benches(), st.randoms(use_true_random=False))
def test_nor_is_it_where_first_measurements_flatter(bench: Bench, random: Random) -> None:
    bench.flattery = [[random.choice((1.0, random.uniform(0.1, 1.0))) for _ in column] for column in bench.truth]
    assert knobs(bench.plan().chosen) == bench.best()


@st.composite
def heavier(draw: st.DrawFn) -> Bench:
    """Draw candidates that take more memory than computed, how much more being anybody's guess, latency falling with width."""
    bench = draw(benches())
    rows = len(bench.paper[0])
    by_width = sorted(draw(st.lists(costs, min_size=len(bench.paper), max_size=len(bench.paper))), reverse=True)
    bench.truth = [[p95] * rows for p95 in by_width]
    shares = st.lists(st.floats(1.0, 4.0), min_size=rows, max_size=rows)
    bench.weight = []
    for column in bench.paper:
        taken = [share * each.memory_mb for share, each in zip(draw(shares), column, strict=True)]
        falling = [max(taken[row:]) for row in range(rows)]
        bench.weight.append([memory / each.memory_mb for memory, each in zip(falling, column, strict=True)])
    return bench


@given(heavier())
def test_nor_is_it_where_memory_is_measured_to_be_more_than_computed(bench: Bench) -> None:
    assert knobs(bench.plan().chosen) == bench.best()


@given(benches())
def test_little_is_costed_less_measured_and_only_the_choice_verified(bench: Bench) -> None:
    chosen = bench.plan().chosen
    assert bench.costed <= 2 + math.log2(len(bench.paper))
    assert bench.measured <= 4 + math.log2(len(bench.paper)) + math.log2(len(bench.paper[0]))
    assert [knobs(bench.paper[index][row]) for index, row in bench.verified] == ([] if chosen is None else [knobs(chosen)])


@st.composite
def erratic(draw: st.DrawFn) -> Bench:
    """Draw measurements that follow no order and contradict each other."""
    bench = draw(benches())
    random = draw(st.randoms(use_true_random=False))

    def table(low: float, high: float) -> list[list[float]]:
        return [[random.uniform(low, high) for _ in column] for column in bench.paper]

    bench.truth, bench.flattery, bench.weight = table(0.5, 100.0), table(0.2, 2.0), table(0.5, 3.0)
    return bench


@given(erratic())
def test_whatever_is_measured_the_search_ends_and_keeps_the_budget(bench: Bench) -> None:
    chosen = bench.plan().chosen
    assert chosen is None or (chosen.verified and keeps(chosen, bench.budget))


@given(erratic())
def test_equal_measurements_make_equal_plans(bench: Bench) -> None:
    assert bench.plan() == replace(bench, costed=0, measured=0, verified=[]).plan()


@given(erratic())
def test_the_nearest_miss_is_what_binds_a_candidate_most_and_none_that_was_measured_misses_by_less(
    bench: Bench,
) -> None:
    plan = bench.plan()
    if plan.nearest_miss is not None:
        miss = plan.nearest_miss
        found = {knobs(each): worst_miss(each, bench.budget) for each in plan.candidates}
        assert found[miss.width_multiplier, miss.sparsity] == miss
        measured = [found[knobs(each)] for each in plan.candidates if each.latency_ms is not None]
        assert all(each is not None and miss.value / miss.allowed <= each.value / each.allowed for each in measured)


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
    assert next_step([None, None, None], limits(latency=5.0)) == Step(0)
    assert next_step([[candidate(0.0), candidate(0.5), candidate(0.9)], None, None], limits(latency=5.0)) == Step(0, 0)


def test_what_misses_on_paper_is_never_measured() -> None:
    bench = single([candidate(0.0, memory=99.0), candidate(0.5), candidate(0.9)], [9.0, 4.0, 1.0], limits(5.0, 50.0))
    plan = bench.plan()
    assert plan.candidates[0].latency_ms is None
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, bench.measured) == (0.5, 1)


def test_without_a_latency_limit_only_the_choice_is_measured_and_that_once() -> None:
    bench = single([candidate(0.0, memory=99.0), candidate(0.5), candidate(0.9)], [9.0, 4.0, 1.0], limits(memory=50.0))
    assert bench.plan().chosen == judge(bench.true(0, 1), bench.budget)
    assert (bench.measured, bench.verified) == (0, [(0, 1)])


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
