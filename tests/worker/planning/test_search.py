from __future__ import annotations

from collections.abc import Sequence

import pytest

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.plan import Candidate
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.planning import search
from reconvene_agent.worker.planning.search import Planner, on_paper
from reconvene_agent.worker.reconvene.method import Design, Reconvene
from reconvene_agent.worker.training import guard
from support.models import RUNTIME, TINY_RESNET, exporter, opened

SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
# Milliseconds at 95 % that the faked stopwatch shows for each sparsity.
SHOWN = {0.0: 10.0, 0.5: 8.0, 0.7: 6.0, 0.8: 5.0, 0.9: 3.0, 0.95: 2.0}


def limit(value: float) -> Limit:
    return Limit(value, "test")


def method(multiplier: float) -> Reconvene:
    return Reconvene(opened(TINY_RESNET), MethodOptions(width_multiplier=multiplier))


class Bench:
    """A planner whose stopwatch is faked, and what was measured with it."""

    def __init__(self) -> None:
        self.measured: list[float] = []
        self.costed: list[float] = []
        self.planner = Planner(self.methods, exporter(TINY_RESNET), RUNTIME, batch=8)
        self.planner._measured = self.stopwatch
        self.reports: list[tuple[float, str]] = []

    def methods(self, multiplier: float) -> Reconvene:
        if multiplier not in self.costed:
            self.costed.append(multiplier)
        return method(multiplier)

    def stopwatch(self, _method: Reconvene, design: Design) -> Latency:
        self.measured.append(design.sparsity)
        share = design.widths["conv"] / 16
        return Latency(SHOWN[design.sparsity] * share * 0.9, SHOWN[design.sparsity] * share, 10)

    def report(self, fraction: float, note: str) -> None:
        self.reports.append((fraction, note))

    def paper(self, sparsity: float) -> Candidate:
        return on_paper(method(1.0).design([sparsity])[0], 1.0, 8)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("allowed", "chosen"), [(100.0, 0.0), (10.0, 0.0), (9.9, 0.5), (5.0, 0.8), (4.9, 0.9), (2.0, 0.95)])
def test_the_lowest_sparsity_whose_measured_latency_fits_is_chosen(bench: Bench, allowed: float, chosen: float) -> None:
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(latency_ms=limit(allowed)), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == chosen
    assert plan.chosen.latency_ms == Latency(SHOWN[chosen] * 0.9, SHOWN[chosen], 10)
    assert plan.nearest_miss is None
    assert len(bench.measured) == len(set(bench.measured)) <= 4
    for candidate in plan.candidates:
        assert (candidate.latency_ms is not None) == (candidate.sparsity in bench.measured)
        if candidate.latency_ms is not None:
            assert candidate.feasible == (candidate.latency_ms.p95 <= allowed)


def test_without_a_limit_on_latency_only_the_choice_is_measured(bench: Bench) -> None:
    allowed = bench.paper(0.7).bytes / 2**20
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(model_mb=limit(allowed)), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.7
    assert bench.measured == [0.7]
    assert [candidate.feasible for candidate in plan.candidates] == [False, False, True, True, True, True]


def test_no_limit_means_no_pruning(bench: Bench) -> None:
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.0


def test_where_nothing_fits_the_nearest_miss_is_told(bench: Bench) -> None:
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(latency_ms=limit(1.0)), bench.report)
    assert plan.chosen is None
    assert plan.nearest_miss is not None
    assert (plan.nearest_miss.sparsity, plan.nearest_miss.limit) == (0.95, "latency_ms")
    assert (plan.nearest_miss.value, plan.nearest_miss.allowed) == (2.0, 1.0)


def test_what_does_not_fit_on_paper_is_not_measured(bench: Bench) -> None:
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(latency_ms=limit(100.0), memory_mb=limit(1e-3)), bench.report)
    assert plan.chosen is None
    assert bench.measured == []
    assert plan.nearest_miss is not None
    assert plan.nearest_miss.limit == "memory_mb"


def test_the_memory_of_training_is_the_least_with_which_it_can_be_done(bench: Bench) -> None:
    costs = method(1.0).design([0.5])[0].costs().training
    assert bench.paper(0.5).training_memory_mb == pytest.approx(guard.least(costs, 8) / 2**20, abs=0.001)
    allowed = bench.paper(0.5).training_memory_mb
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(training_memory_mb=limit(allowed)), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.5


def test_a_limit_on_the_median_is_kept_as_one_on_the_slow_ones(bench: Bench) -> None:
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(latency_p50_ms=limit(SHOWN[0.8] * 0.9)), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.8
    hopeless = bench.planner.search((1.0,), SPARSITIES, Budget(latency_p50_ms=limit(0.1)), bench.report)
    assert hopeless.nearest_miss is not None
    assert hopeless.nearest_miss.limit == "latency_p50_ms"


def test_candidates_may_come_in_any_order_and_twice(bench: Bench) -> None:
    plan = bench.planner.search((1.0,), (0.9, 0.5, 0.9, 0.0), Budget(latency_ms=limit(9.0)), bench.report)
    assert [candidate.sparsity for candidate in plan.candidates] == [0.0, 0.5, 0.9]
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.5


def test_an_imposed_sparsity_is_measured_and_chosen_whether_it_fits_or_not(bench: Bench) -> None:
    fits = bench.planner.imposed(1.0, 0.5, Budget(latency_ms=limit(8.0)), bench.report)
    misses = bench.planner.imposed(1.0, 0.5, Budget(latency_ms=limit(7.0)), bench.report)
    assert bench.measured == [0.5]
    assert fits.chosen is not None
    assert misses.chosen is not None
    assert (fits.chosen.feasible, fits.nearest_miss) == (True, None)
    assert misses.chosen.feasible is False
    assert misses.nearest_miss is not None
    assert misses.nearest_miss.value == 8.0


def test_progress_grows_and_says_what_is_measured(bench: Bench) -> None:
    bench.planner.search((1.0,), SPARSITIES, Budget(latency_ms=limit(5.0)), bench.report)
    fractions = [fraction for fraction, _ in bench.reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] < 1.0
    assert [note for _, note in bench.reports[1:]] == [f"measuring sparsity {each:g}" for each in bench.measured]


def test_the_stopwatch_is_given_real_models_and_their_graph_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def fake(sessions: Sequence[object], _seconds: float) -> list[Latency]:
        (session,) = sessions
        shapes = [entry.shape for entry in session.get_inputs()]
        assert shapes == [["batch", 3, 8, 8]]
        sizes.append(len(sizes))
        return [Latency(10.0 - len(sizes), 10.0 - len(sizes), 5)]

    monkeypatch.setattr(search, "measure", fake)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    plan = planner.search((1.0,), (0.0, 0.9), Budget(latency_ms=limit(8.5)), lambda *_: None)
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, sizes) == (0.9, [0, 1])


@pytest.mark.parametrize(
    ("allowed", "multiplier", "sparsity"),
    [(10.0, 1.0, 0.0), (9.9, 0.75, 0.0), (7.5, 0.75, 0.0), (5.0, 0.5, 0.0), (2.0, 0.25, 0.5)],
)
def test_a_latency_is_met_by_narrower_networks_before_sparser_ones(
    bench: Bench, allowed: float, multiplier: float, sparsity: float
) -> None:
    plan = bench.planner.search((0.25, 1.0, 0.5, 0.75, 0.5), (0.0, 0.5, 0.9), Budget(latency_ms=limit(allowed)), bench.report)
    assert plan.chosen is not None
    assert (plan.chosen.width_multiplier, plan.chosen.sparsity) == (multiplier, sparsity)
    assert plan.chosen.params == design_params(multiplier, sparsity)
    assert {candidate.width_multiplier for candidate in plan.candidates} == set(bench.costed)
    assert len(bench.costed) <= 4
    multipliers = [candidate.width_multiplier for candidate in plan.candidates]
    assert multipliers == sorted(multipliers, reverse=True)


def design_params(multiplier: float, sparsity: float) -> int:
    return method(multiplier).design([sparsity])[0].costs().params


def test_a_width_that_nobody_needs_is_not_even_scored(bench: Bench) -> None:
    bench.planner.search((1.0, 0.5, 0.25), SPARSITIES, Budget(latency_ms=limit(100.0)), bench.report)
    assert bench.costed == [1.0]


def test_networks_of_the_same_widths_are_measured_once(bench: Bench) -> None:
    budget = Budget(latency_ms=limit(1e-3))
    plan = bench.planner.search((0.5, 0.49), (0.0,), budget, bench.report)
    assert [candidate.latency_ms is not None for candidate in plan.candidates] == [True, True]
    assert len({candidate.params for candidate in plan.candidates}) == len(bench.measured) == 1


@pytest.mark.slow
def test_a_plan_by_the_real_stopwatch_and_one_that_is_imposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MEASURE_SECONDS", 0.1)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    plan = planner.search((1.0,), (0.0, 0.5, 0.95), Budget(latency_ms=limit(1000.0)), lambda *_: None)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.0
    assert plan.chosen.latency_ms is not None
    assert 0 < plan.chosen.latency_ms.p50 <= plan.chosen.latency_ms.p95
    imposed = planner.imposed(1.0, 0.95, Budget(latency_ms=limit(1e-6)), lambda *_: None).chosen
    assert imposed is not None
    assert imposed.latency_ms is not None
    assert imposed.feasible is False
    assert imposed.params < plan.chosen.params / 8
