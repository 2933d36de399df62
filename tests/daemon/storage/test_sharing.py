from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.daemon.effects import Kind
from reconvene_agent.daemon.storage.sharing import can_have_room, gives_way

RECORD = 10

kinds: st.SearchStrategy[Literal["measurement", "event"]] = st.sampled_from(["measurement", "event"])


@given(st.integers(0, 30), st.integers(0, 30), kinds, st.integers(1, 300), st.sampled_from([0, 25, 100, 200]))
def test_who_has_to_go_goes_until_it_fits(measurements: int, events: int, kind: Kind, size: int, reserve: int) -> None:
    limit = 200
    held: dict[Kind, int] = {"measurement": measurements * RECORD, "event": events * RECORD}
    before = dict(held)
    if not can_have_room(held, kind, size, limit, reserve):
        assert size + (min(held["event"], reserve) if kind == "measurement" else 0) > limit
        return
    while (victim := gives_way(held, kind, size, limit, reserve)) is not None:
        assert held[victim] > 0
        held[victim] -= RECORD
    assert sum(held.values()) + size <= limit
    if kind == "measurement":
        assert held["event"] > min(before["event"], reserve) - RECORD, "its share is left to the events"
    if kind == "event" and before["event"] + size > reserve:
        kept = min(before["measurement"], limit - reserve)
        assert held["measurement"] >= min(kept, limit - size) - RECORD or held["event"] == 0, "and the rest to measurements"


def test_what_fits_drives_out_nothing() -> None:
    assert gives_way({"measurement": 50, "event": 40}, "measurement", 10, 100, 25) is None


def test_who_takes_more_than_its_share_gives_way() -> None:
    assert gives_way({"measurement": 90, "event": 10}, "event", 10, 100, 25) == "measurement"
    assert gives_way({"measurement": 90, "event": 10}, "measurement", 10, 100, 25) == "measurement"
    assert gives_way({"measurement": 70, "event": 30}, "event", 10, 100, 25) == "event"
    assert gives_way({"measurement": 10, "event": 90}, "measurement", 10, 100, 25) == "event"
    assert gives_way({"measurement": 0, "event": 100}, "event", 10, 100, 25) == "event"
