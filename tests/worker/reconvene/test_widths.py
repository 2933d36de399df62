from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.widths import rounded


def group(width: int, entries: int = 1) -> ChannelGroup:
    return ChannelGroup("layer", width, entries, ("layer",), "")


@pytest.mark.parametrize(
    ("wanted", "least", "multiple", "kept"),
    [
        (34.3, 1, 1, 35),
        (0.1 * 50, 1, 1, 5),
        (0.0, 4, 1, 4),
        (17, 4, 8, 24),
        (24, 4, 8, 24),
        (61, 4, 8, 64),
        (3, 12, 8, 16),
        (64, 4, 48, 64),
    ],
    ids=["whole", "exact", "least", "multiple", "already", "up to all", "least comes in multiples too", "never more than all"],
)
def test_a_width_is_rounded_up_within_its_bounds(wanted: float, least: int, multiple: int, kept: int) -> None:
    assert rounded(wanted, group(64), least, multiple) == kept


@pytest.mark.parametrize(
    ("entries", "least", "multiple", "kept"), [(16, 4, 8, 1), (4, 4, 8, 2), (4, 9, 1, 3), (3, 1, 8, 2), (64, 128, 8, 2)]
)
def test_heads_and_blocks_count_with_all_their_channels(entries: int, least: int, multiple: int, kept: int) -> None:
    assert rounded(0.5, group(12, entries), least, multiple) == kept


@given(st.integers(1, 300), st.sampled_from([1, 2, 4, 64]), st.floats(0, 1), st.integers(1, 64), st.sampled_from([1, 2, 8, 32]))
def test_what_is_kept_is_enough_and_no_step_too_much(width: int, entries: int, share: float, least: int, multiple: int) -> None:
    of = group(width, entries)
    kept = rounded(share * width, of, least, multiple)
    step = max(1, multiple // entries)
    assert 1 <= kept <= width
    assert kept == width or (kept >= share * width - 1e-6 and kept * entries >= least and kept % step == 0)
    assert kept <= step or kept - step < share * width or (kept - step) * entries < least


@given(st.integers(1, 300), st.floats(0, 300), st.floats(0, 300), st.integers(1, 64), st.sampled_from([1, 8]))
def test_more_wanted_is_never_less_kept(width: int, one: float, other: float, least: int, multiple: int) -> None:
    low, high = sorted((one, other))
    assert rounded(low, group(width), least, multiple) <= rounded(high, group(width), least, multiple)
