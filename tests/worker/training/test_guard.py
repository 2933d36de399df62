from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.models.costs import TrainingCosts
from reconvene_agent.worker.training import guard
from reconvene_agent.worker.training.guard import MIB, OVERHEAD, SCATTERED, SMALLEST, Share

COSTS = TrainingCosts(weights=MIB, masks=0, saved=MIB, recomputed=MIB // 4)
"""Four MiB for the weights and their companions, and one for each input, or a quarter of one."""

sizes = st.integers(1, 64 * MIB)
costs = st.builds(
    lambda weights, masks, saved, share: TrainingCosts(weights, masks, saved, max(1, int(saved * share))),
    sizes,
    sizes,
    sizes,
    st.floats(0.01, 1.0),
)
batches = st.integers(2, 512)
limits = st.floats(1.0, 1e5)


OVERHEAD_MB = OVERHEAD / MIB


@pytest.mark.parametrize(
    ("limit", "share"),
    [
        (1000.0, Share(64)),
        (OVERHEAD_MB + SCATTERED * 68.0, Share(64)),
        (OVERHEAD_MB + SCATTERED * 68.0 - 0.1, Share(32)),
        (OVERHEAD_MB + SCATTERED * 12.0, Share(8)),
        (OVERHEAD_MB + SCATTERED * 12.0 - 0.1, Share(8, spare=True)),  # sixteen would take 20
        (OVERHEAD_MB + 11.9, Share(16, recompute=True, spare=True)),  # seven of them would be too few to normalise by
        (OVERHEAD_MB + 6.0, Share(8, recompute=True, spare=True)),
        (1.0, Share(8, recompute=True, spare=True)),  # nothing fits; nothing takes less
    ],
)
def test_fewer_at_a_time_come_before_sparing_and_that_before_computing_anew(limit: float, share: Share) -> None:
    assert guard.choose(COSTS, 64, limit) == share


def test_an_average_of_the_weights_takes_its_place() -> None:
    limit = guard.needed(COSTS, Share(64)) / MIB
    assert guard.choose(COSTS, 64, limit, average=True) == Share(32)
    assert COSTS.memory(8, average=True) - COSTS.memory(8) == MIB


@given(costs, batches, limits)
def test_what_fits_is_chosen_and_nothing_faster_is_passed_over(found: TrainingCosts, batch: int, limit: float) -> None:
    chosen = guard.choose(found, batch, limit)
    ways = list(guard.shares(batch))
    assert chosen in ways
    fits = [way for way in ways if guard.needed(found, way) <= limit * MIB]
    assert chosen == fits[0] if fits else guard.needed(found, chosen) == guard.least(found, batch)


@given(batches)
def test_the_ways_begin_with_the_whole_batch_and_never_take_fewer_than_make_sense(batch: int) -> None:
    ways = list(guard.shares(batch))
    assert ways[0] == Share(batch)
    assert all(min(batch, SMALLEST) <= way.micro_batch <= batch for way in ways)
    assert ways[-1] == Share(min(batch, SMALLEST), recompute=True, spare=True)


@given(costs, batches, limits, st.floats(1.01, 10.0))
def test_a_measure_over_the_limit_leads_to_one_that_by_its_word_is_within(
    found: TrainingCosts, batch: int, limit: float, factor: float
) -> None:
    tried = guard.choose(found, batch, limit)
    measured = factor * max(limit, guard.needed(found, tried) / MIB)
    corrected = guard.correct(found, batch, limit, tried, measured)
    if corrected is None:
        return
    excess = measured * MIB / guard.needed(found, tried)
    least = excess * guard.least(found, batch) / MIB
    assert excess * guard.needed(found, corrected) / MIB <= max(limit * 1.001, least * 1.001)
