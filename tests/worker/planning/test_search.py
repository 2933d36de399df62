from __future__ import annotations

from collections.abc import Callable

import pytest

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.measuring import Conditions, Measurement
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.plan import Candidate, reservations
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.deploy.session import Session
from reconvene_agent.worker.deploy.trial import Outcome
from reconvene_agent.worker.deploy.trying import TrialFailed
from reconvene_agent.worker.planning import search
from reconvene_agent.worker.planning.findings import Finding
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
    """A planner whose stopwatch and trial are faked, and what was measured and tried with them.

    A trial finds the latency times ``slower``, and ``memory_mb`` for every model.
    """

    def __init__(self) -> None:
        self.measured: list[float] = []
        self.tried: list[float] = []
        self.slower: dict[float, float] = {}
        self.memory_mb = 1.0
        self.costed: list[float] = []
        self.planner = Planner(self.methods, exporter(TINY_RESNET), RUNTIME, batch=8)
        self.planner._measured = self.stopwatch
        self.planner._tried = self.trial
        self.reports: list[tuple[float, str]] = []

    def methods(self, multiplier: float) -> Reconvene:
        if multiplier not in self.costed:
            self.costed.append(multiplier)
        return method(multiplier)

    def stopwatch(self, _method: Reconvene, design: Design, _budget: Budget) -> Finding:
        self.measured.append(design.sparsity)
        return Finding(Measurement(self.latency(design)))

    def trial(self, _method: Reconvene, design: Design, budget: Budget, _heartbeat: Callable[[], None]) -> Finding:
        self.tried.append(design.sparsity)
        if budget.memory_mb is not None and self.memory_mb > budget.memory_mb.value:
            return Finding(None, verified=True, memory_mb=self.memory_mb)
        latency = self.latency(design, self.slower.get(design.sparsity, 1.0))
        return Finding(Measurement(latency), verified=True, memory_mb=self.memory_mb)

    def latency(self, design: Design, times: float = 1.0) -> Latency:
        shown = SHOWN[design.sparsity] * design.widths["conv"] / 16 * times
        return Latency(shown * 0.9, shown, 10)

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
    assert bench.tried == [chosen]
    assert plan.chosen.verified
    assert plan.chosen.memory_measured_mb == 1.0
    for candidate in plan.candidates:
        assert (candidate.latency_ms is not None) == (candidate.sparsity in bench.measured)
        if candidate.latency_ms is not None:
            assert candidate.feasible == (candidate.latency_ms.p95 <= allowed)


def test_without_a_limit_on_latency_only_the_choice_is_measured_and_that_once(bench: Bench) -> None:
    allowed = bench.paper(0.7).bytes / 2**20
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(model_mb=limit(allowed)), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.7
    assert (bench.measured, bench.tried) == ([], [0.7])
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
    assert bench.tried == [0.5]
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
    notes = [*(f"measuring sparsity {each:g}" for each in bench.measured), "verifying sparsity 0.8"]
    assert [note for _, note in bench.reports[1:]] == notes


def test_the_stopwatch_is_given_real_models_and_their_graph_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Latency] = []

    def fake(session: Session, _seconds: float) -> Measurement:
        assert [entry.shape for entry in session.get_inputs()] == [["batch", 3, 8, 8]]
        timed.append(Latency(9.0 - len(timed), 9.0 - len(timed), 5))
        return Measurement(timed[-1])

    monkeypatch.setattr(search, "measure_once", fake)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    planner._tried = lambda *_: Finding(Measurement(timed[-1]), verified=True)
    plan = planner.search((1.0,), (0.0, 0.9), Budget(latency_ms=limit(8.5)), lambda *_: None)
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, len(timed)) == (0.9, 2)


def test_what_turns_out_too_slow_when_it_is_verified_is_refused_and_the_search_goes_on(bench: Bench) -> None:
    bench.slower = {0.8: 1.1, 0.9: 1.7}
    plan = bench.planner.search((1.0,), SPARSITIES, Budget(latency_ms=limit(5.0)), bench.report)
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, bench.tried) == (0.95, [0.8, 0.9, 0.95])
    refused = {candidate.sparsity: candidate for candidate in plan.candidates}[0.8]
    assert (refused.feasible, refused.verified, refused.why) == (False, True, "latency_ms 5.5 is over the limit of 5")


def test_what_takes_more_memory_than_computed_is_refused_and_so_is_all_else(bench: Bench) -> None:
    bench.memory_mb = 50.0
    plan = bench.planner.search((1.0,), (0.8, 0.95), Budget(memory_mb=limit(49.0)), bench.report)
    assert plan.chosen is None
    assert plan.nearest_miss is not None
    assert (plan.nearest_miss.limit, plan.nearest_miss.value, bench.tried) == ("memory_mb", 50.0, [0.8, 0.95])
    assert all(candidate.verified and candidate.latency_ms is None for candidate in plan.candidates)


def test_an_imposed_sparsity_is_timed_although_it_takes_too_much_memory(bench: Bench) -> None:
    bench.memory_mb = 50.0
    plan = bench.planner.imposed(1.0, 0.5, Budget(memory_mb=limit(49.0)), bench.report)
    assert plan.chosen is not None
    assert plan.chosen.latency_ms is not None
    assert plan.nearest_miss is not None
    assert plan.nearest_miss.value == 50.0


@pytest.mark.parametrize(
    ("quiet_after", "measured", "repeats", "sparsity"), [(0, 1, 0, 0.0), (1, 2, 1, 0.0), (2, 3, 2, 0.0), (9, 4, 2, 0.9)]
)
def test_a_disturbed_measurement_that_misses_is_taken_again_at_most_twice(
    quiet_after: int, measured: int, repeats: int, sparsity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []

    def disturbed(_session: Session, _seconds: float) -> Measurement:
        taken.append(0.0)
        quiet = len(taken) > quiet_after or len(taken) > 3
        return Measurement(Latency(4.0, 5.0 if quiet else 7.0, 9), Conditions(others=0.0 if quiet else 0.5))

    monkeypatch.setattr(search, "measure_once", disturbed)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    planner._tried = lambda *_: Finding(Measurement(Latency(4.0, 5.0, 9)), verified=True)
    plan = planner.search((1.0,), (0.0, 0.9), Budget(latency_ms=limit(6.0)), lambda *_: None)
    assert plan.chosen is not None
    assert (plan.chosen.sparsity, len(taken)) == (sparsity, measured)
    first = plan.candidates[0]
    assert first.repeats == (0 if first.verified else repeats)
    assert bool(first.doubts) == (sparsity != 0.0)


def test_a_board_that_is_never_quiet_has_its_plan_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []

    def disturbed(_session: Session, _seconds: float) -> Measurement:
        taken.append(0.0)
        return Measurement(Latency(4.0, 7.0, 9), Conditions(others=0.5))

    monkeypatch.setattr(search, "measure_once", disturbed)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    plan = planner.search((1.0, 0.5, 0.25), (0.0, 0.5, 0.9), Budget(latency_ms=limit(6.0)), lambda *_: None)
    assert plan.chosen is None
    asked = sum(candidate.latency_ms is not None for candidate in plan.candidates)
    assert len(taken) == asked + search.REPEATS_IN_ALL
    assert reservations(plan).startswith("the figures of ")
    assert "other processes took 50% of the processors" in reservations(plan)


def test_where_the_trial_fails_the_estimate_stands_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Outcome:
        raise TrialFailed("no room")

    monkeypatch.setattr(search, "try_model", broken)
    monkeypatch.setattr(search, "VERIFY_SECONDS", 0.01)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    chosen = planner.search((1.0,), (0.9,), Budget(memory_mb=limit(100.0)), lambda *_: None).chosen
    assert chosen is not None
    assert (chosen.verified, chosen.memory_measured_mb) == (True, None)
    assert chosen.latency_ms is not None
    assert chosen.doubts[-1] == "its memory is an estimate, since the trial failed: no room"


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
    monkeypatch.setattr(search, "VERIFY_SECONDS", 0.1)
    planner = Planner(method, exporter(TINY_RESNET), RUNTIME, 8)
    plan = planner.search((1.0,), (0.0, 0.5, 0.95), Budget(latency_ms=limit(1000.0)), lambda *_: None)
    assert plan.chosen is not None
    assert plan.chosen.sparsity == 0.0
    assert plan.chosen.latency_ms is not None
    assert 0 < plan.chosen.latency_ms.p50 <= plan.chosen.latency_ms.p95
    assert plan.chosen.memory_measured_mb == pytest.approx(plan.chosen.memory_mb, rel=0.35)
    imposed = planner.imposed(1.0, 0.95, Budget(latency_ms=limit(1e-6)), lambda *_: None).chosen
    assert imposed is not None
    assert imposed.latency_ms is not None
    assert imposed.feasible is False
    assert imposed.params < plan.chosen.params / 8
