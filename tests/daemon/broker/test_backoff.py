from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.daemon.broker.backoff import BASE_S, CAP_S, delay


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_wait_is_bounded(attempt: int, chance: float) -> None:
    assert BASE_S <= delay(attempt, chance) <= CAP_S


@given(st.integers(0, 100), st.floats(0, 1))
def test_it_grows_with_the_attempts(attempt: int, chance: float) -> None:
    assert delay(attempt, chance) <= delay(attempt + 1, chance)


def test_from_a_second_or_two_to_five_minutes_with_full_jitter() -> None:
    assert [delay(attempt, 1.0) for attempt in range(9)] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert delay(50, 0.5) == 150.0
    assert delay(50, 0.0) == 1.0
