from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.options import Schedule
from reconvene_agent.worker.training.schedule import END_DIVISOR, RISE, SCHEDULES, START_DIVISOR, WARM_UP, cosine, one_cycle

TOTALS = st.integers(1, 2000)
PEAK = 0.1


@given(TOTALS)
def test_the_rate_is_never_above_its_peak_and_never_gone(total: int) -> None:
    rates = [one_cycle(step, total, PEAK) for step in range(total)]
    assert all(PEAK / END_DIVISOR <= rate <= PEAK for rate in rates)


@given(st.integers(8, 2000))
def test_the_rate_rises_for_a_quarter_of_the_steps_and_falls_for_the_rest(total: int) -> None:
    rates = [one_cycle(step, total, PEAK) for step in range(total)]
    top = rates.index(max(rates))
    assert top / total == pytest.approx(RISE, abs=1.0 / total)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_rate_starts_low_peaks_and_ends_at_almost_nothing() -> None:
    assert one_cycle(0, 400, PEAK) == pytest.approx(PEAK / START_DIVISOR)
    assert one_cycle(100, 400, PEAK) == pytest.approx(PEAK)
    assert one_cycle(399, 400, PEAK) == pytest.approx(PEAK / END_DIVISOR)


@given(TOTALS, st.floats(1e-6, 10.0))
def test_the_rate_is_in_proportion_to_its_peak(total: int, peak: float) -> None:
    step = total // 3
    assert one_cycle(step, total, peak) == pytest.approx(peak * one_cycle(step, total, 1.0))


def test_a_cosine_warms_up_in_a_twentieth_and_is_half_way_down_in_the_middle_of_the_rest() -> None:
    assert WARM_UP == 1 / 20
    assert cosine(0, 400, PEAK) == pytest.approx(PEAK / START_DIVISOR)
    assert cosine(20, 400, PEAK) == pytest.approx(PEAK)
    assert cosine((20 + 399) // 2, 400, PEAK) == pytest.approx(PEAK / 2, rel=0.01)
    assert cosine(399, 400, PEAK) == pytest.approx(PEAK / END_DIVISOR)


def test_every_schedule_that_can_be_asked_for_is_there() -> None:
    assert set(SCHEDULES) == set(get_args(Schedule))
