from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import windows
from reconvene_agent.core.windows import Window

MIDNIGHT = 1767222000.0
"""2026-01-01 in Berlin."""
HOUR = 3600.0


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let local time be that of a place with summer time."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("01:00-05:00", Window(60, 300)),
        ("22:30-06:05", Window(1350, 365)),
        ("00:00-24:00", Window(0, 1440)),
        ("00:00-00:01", Window(0, 1)),
    ],
)
def test_a_window_is_read_and_written_the_same(text: str, window: Window) -> None:
    assert windows.parse(text) == window
    assert str(window) == text
    assert windows.mistake(text) == ""


@pytest.mark.parametrize(
    "text",
    ["", "1:00-5:00", "01:00", "01:00-", "01:00-25:00", "24:00-05:00", "01:60-02:00", "01:00 - 05:00", "01:00-24:01", "x" * 99],
)
def test_what_is_no_window_is_told_what_one_looks_like(text: str) -> None:
    assert windows.mistake(text) == f"{text!r} must look like 01:00-05:00"


def test_a_window_without_end_is_refused() -> None:
    assert "must end at another time" in windows.mistake("01:00-01:00")


@pytest.mark.parametrize(
    ("text", "opened"),
    [("01:00-05:00", [1, 2, 3, 4]), ("22:00-02:00", [0, 1, 22, 23]), ("00:00-24:00", list(range(24))), ("23:00-24:00", [23])],
)
def test_when_a_window_is_open(text: str, opened: list[int]) -> None:
    window = [windows.parse(text)]
    assert [hour for hour in range(24) if windows.open_at(window, MIDNIGHT + hour * HOUR)] == opened


def test_the_end_does_not_belong_to_a_window() -> None:
    window = [windows.parse("01:00-05:00")]
    assert windows.open_at(window, MIDNIGHT + 5 * HOUR - 1)
    assert not windows.open_at(window, MIDNIGHT + 5 * HOUR)


def test_the_next_opening_is_the_first_of_all_windows() -> None:
    both = [windows.parse("01:00-05:00"), windows.parse("13:00-14:00")]
    assert windows.next_opening(both, MIDNIGHT) == MIDNIGHT + HOUR
    assert windows.next_opening(both, MIDNIGHT + 6 * HOUR) == MIDNIGHT + 13 * HOUR
    assert windows.next_opening(both, MIDNIGHT + 20 * HOUR) == MIDNIGHT + 25 * HOUR


def test_a_window_opens_by_the_local_clock_on_the_night_that_clocks_change() -> None:
    evening = 1774738800.0  # 2026-03-29 at 00:00, two hours before the clocks go forward
    assert windows.next_opening([windows.parse("04:00-05:00")], evening) == evening + 3 * HOUR


@given(
    begins=st.integers(0, 1439),
    length=st.integers(1, 1439),
    wall=st.floats(MIDNIGHT, MIDNIGHT + 400 * 86400),
)
def test_a_window_that_is_shut_opens_next_when_it_says(begins: int, length: int, wall: float) -> None:
    window = [Window(begins, (begins + length) % 1440)]
    opening = windows.next_opening(window, wall)
    assert opening > wall
    # An hour that clocks skip does not come, and the window opens with the next.
    assert windows.open_at(window, opening) or time.localtime(opening).tm_isdst != time.localtime(opening - 86400).tm_isdst
