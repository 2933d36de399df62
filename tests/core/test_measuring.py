from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.measuring import (
    MOST_FINAL_REPEATS,
    MOST_REPEATS,
    Conditions,
    Measurement,
    better,
    worth_repeating,
)
from reconvene_agent.core.release import Latency

QUIET = Measurement(Latency(4.0, 5.0, 100, 0.1), Conditions(0.0, 0.0, 0.0, False, 1.0))

shares = st.none() | st.floats(0.0, 1.0)
conditions = st.builds(Conditions, shares, shares, shares, st.none() | st.booleans(), shares)
latencies = st.builds(
    lambda p50, tail, spread: Latency(p50, p50 * tail, 50, spread), st.floats(0.1, 50.0), st.floats(1.0, 5.0), st.floats(0.0, 2.0)
)
measurements = st.builds(Measurement, latencies, conditions)
limits = st.none() | st.floats(0.1, 100.0).map(lambda value: Limit(value, "test"))
budgets = st.builds(lambda p95, p50: Budget(latency_ms=p95, latency_p50_ms=p50), limits, limits)


def misses(found: Measurement, budget: Budget) -> bool:
    pairs = ((found.latency.p95, budget.latency_ms), (found.latency.p50, budget.latency_p50_ms))
    return any(limit is not None and value > limit.value for value, limit in pairs)


@pytest.mark.parametrize(
    ("found", "doubt"),
    [
        (Conditions(others=0.11), "other processes took 11% of the processors"),
        (Conditions(waited=0.06), "it waited for a processor 6% of the time"),
        (Conditions(stolen=0.2), "the virtual machine's host took 20% of the processors"),
        (Conditions(throttled=True), "heat or the power supply held the clocks down"),
        (Conditions(clock=0.6), "the clock was at 60%"),
        (Conditions(clock=0.6, throttled=True), "heat or the power supply held the clocks down"),
        (Latency(4.0, 9.0, 30, 0.1), "the slow ones took 2.2 times the median"),
        (Latency(4.0, 5.0, 30, 0.5), "the middle half of the times lay 50% of their median apart"),
    ],
)
def test_each_disturbance_has_its_name(found: Conditions | Latency, doubt: str) -> None:
    measurement = Measurement(found) if isinstance(found, Latency) else Measurement(QUIET.latency, found)
    assert measurement.doubts == (doubt,)


@pytest.mark.parametrize("under", [Conditions(), QUIET.conditions, Conditions(0.1, 0.05, 0.05, None, 0.9)])
def test_what_is_quiet_or_cannot_be_told_makes_no_doubt(under: Conditions) -> None:
    assert Measurement(QUIET.latency, under).doubts == ()


@given(measurements, measurements)
def test_the_less_doubtful_one_is_kept_and_of_two_alike_the_faster(one: Measurement, other: Measurement) -> None:
    kept = better(one, other)
    assert kept in (one, other)
    assert len(kept.doubts) == min(len(one.doubts), len(other.doubts))
    if len(one.doubts) == len(other.doubts):
        assert kept.latency.p95 == min(one.latency.p95, other.latency.p95)
    assert better(kept, kept) == better(other, one) or (kept.latency.p95, kept.latency.p50) == (
        better(other, one).latency.p95,
        better(other, one).latency.p50,
    )


@given(measurements, budgets, st.integers(0, 5))
def test_only_what_is_in_doubt_and_too_slow_by_it_is_measured_again(found: Measurement, budget: Budget, repeats: int) -> None:
    if worth_repeating(found, budget, repeats):
        assert found.doubts
        assert misses(found, budget)
        assert repeats < MOST_REPEATS


@given(measurements, budgets)
def test_a_near_miss_in_doubt_is_always_measured_again(found: Measurement, budget: Budget) -> None:
    near = all(found.latency.p50 <= 2 * limit.value for _, limit in budget.limits())
    if found.doubts and misses(found, budget) and near:
        assert worth_repeating(found, budget, 0)


@given(measurements, budgets, st.integers(0, 5))
def test_the_choice_is_measured_again_whenever_it_is_in_doubt(found: Measurement, budget: Budget, repeats: int) -> None:
    assert worth_repeating(found, budget, repeats, final=True) == (bool(found.doubts) and repeats < MOST_FINAL_REPEATS)


def test_what_no_quiet_moment_would_help_is_not_measured_again() -> None:
    loaded = Conditions(others=0.7)
    budget = Budget(latency_ms=Limit(1.0, "test"))
    assert worth_repeating(Measurement(Latency(2.9, 20.0, 30), loaded), budget, 0)
    assert not worth_repeating(Measurement(Latency(3.1, 20.0, 30), loaded), budget, 0)


def test_every_clause_fits_into_one_line() -> None:
    for others, throttled in product((None, 1.0), (None, True)):
        for doubt in Measurement(Latency(0.0, 0.0, 1), Conditions(others, 1.0, 1.0, throttled, 0.1)).doubts:
            assert "\n" not in doubt
