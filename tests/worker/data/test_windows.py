from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reconvene_agent.worker.data.windows import BLOCK, Cutter


def cut(signal: NDArray[np.float32], length: int, overlap: float) -> list[tuple[NDArray[np.float32], bool]]:
    cutter = Cutter(length, overlap, 0.3)
    found = [block for reading in signal for block in cutter.add(reading.tolist())]
    return found + list(cutter.end())


def signal(count: int, channels: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, channels), dtype=np.float32)


@pytest.mark.parametrize(
    ("count", "overlap", "starts"),
    [(10, 0.0, [0]), (20, 0.0, [0, 10]), (29, 0.5, [0, 5, 10, 15]), (12, 0.9, [0, 1, 2]), (9, 0.5, [])],
)
def test_windows_begin_where_the_overlap_says_and_are_channels_first(count: int, overlap: float, starts: list[int]) -> None:
    readings = signal(count)
    windows = [window for block, _ in cut(readings, 10, overlap) for window in block]
    assert [window.tobytes() for window in windows] == [readings[start : start + 10].T.tobytes() for start in starts]


@given(st.integers(0, 300), st.integers(1, 200), st.integers(1, 12), st.sampled_from([0.0, 0.5, 0.75]))
def test_as_a_recording_grows_no_window_of_its_full_blocks_changes_sides(
    count: int, more: int, length: int, overlap: float
) -> None:
    readings = signal(count + more)
    full = count // (BLOCK * length)
    before, after = (cut(some, length, overlap)[:full] for some in (readings[:count], readings))
    assert [(block.tobytes(), side) for block, side in before] == [(block.tobytes(), side) for block, side in after]


@given(st.integers(0, 300), st.integers(1, 12), st.sampled_from([0.0, 0.5, 0.9]))
def test_no_reading_is_on_both_sides(count: int, length: int, overlap: float) -> None:
    readings = np.arange(count, dtype=np.float32)[:, np.newaxis]
    sides: tuple[set[float], set[float]] = (set(), set())
    for block, side in cut(readings, length, overlap):
        sides[side].update(block.ravel().tolist())
    assert not sides[0] & sides[1]
    if not overlap:
        assert len(sides[0] | sides[1]) == count - count % length


def test_one_recording_after_the_other_is_cut_as_if_alone() -> None:
    cutter = Cutter(4, 0.5, 0.3)
    for _ in range(2):
        found = [block for reading in signal(10) for block in cutter.add(reading.tolist())] + list(cutter.end())
        assert [len(block) for block, _ in found] == [4]
        assert cutter.count == 0
