from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.clock import rfc3339, wall_seconds


def test_times_are_written_in_utc_to_the_millisecond() -> None:
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1767225600.25) == "2026-01-01T00:00:00.250Z"


@given(st.floats(0, 4e9))
def test_what_is_written_can_be_read_back(wall: float) -> None:
    assert wall_seconds(rfc3339(wall)) == pytest.approx(wall, abs=0.0011)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1969-12-31T19:00:10.5-05:00", 10.5),
        (12, 12.0),
        (12.5, 12.5),
    ],
)
def test_an_offset_or_a_number_tells_the_moment(text: str | float, seconds: float) -> None:
    assert wall_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "now", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "12"])
def test_a_time_without_its_offset_is_none(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        wall_seconds(text)
