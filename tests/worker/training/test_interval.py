from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.training.interval import SHARE, Interval


def test_the_first_is_due_at_once() -> None:
    assert Interval().is_due(0.0)


@given(st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.0001, 2.0)), min_size=5, max_size=200))
def test_checkpoints_cost_no_more_than_their_share_of_all_training(steps: list[tuple[float, float]]) -> None:
    interval, spent, costs, last = Interval(), 0.0, 0.0, 0.0
    for seconds, cost in steps:
        spent += seconds
        if interval.is_due(spent):
            spent += cost
            costs, last = costs + cost, cost
            interval.stored(spent, cost)
    # All but the last have had the time to pay off.
    assert costs - last <= SHARE * spent


def test_what_is_cheap_is_done_often() -> None:
    interval = Interval()
    interval.stored(10.0, 0.01)
    assert not interval.is_due(10.4)
    assert interval.is_due(10.5)
