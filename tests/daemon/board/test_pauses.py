from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import windows
from reconvene_agent.core.clock import Now
from reconvene_agent.core.device import Strain
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.profile import Thermal
from reconvene_agent.daemon.board.pauses import CALM_S, FRESH_S, Guard, Hold

THERMAL = Thermal(80.0, 70.0)


def at(mono: float = 0.0, synchronized: bool = True) -> Now:
    return Now(1767225600.0 + mono, mono, synchronized)


def cause(guard: Guard, op: str = "specialize", now: Now | None = None) -> str:
    hold = guard.hold(op, now or at())
    return "" if hold is None else hold.cause


def feel(guard: Guard, temperature: float | None = None, weak: bool | None = None, mono: float = 0.0) -> str:
    guard.feel(Strain(temperature, weak), at(mono))
    return cause(guard)


# --- heat --------------------------------------------------------------------------------------------------------------------


def test_training_pauses_above_hot_and_goes_on_below_cool() -> None:
    guard = Guard(THERMAL)
    told = [feel(guard, degrees) for degrees in (60, 75, 80, 80.1, 80, 75, 70, 69.9, 75, 80)]
    assert told == ["", "", "", "heat", "heat", "heat", "heat", "", "", ""]


def test_the_reason_names_the_limits_and_does_not_change_with_every_degree() -> None:
    guard = Guard(THERMAL)
    feel(guard, 82.0)
    said = guard.heat
    assert said == "the board is too hot: 82 °C, over 80; goes on below 70"
    feel(guard, 85.0)
    assert guard.heat == said


@given(st.lists(st.none() | st.floats(-40.0, 125.0), max_size=40))
def test_the_state_is_that_of_the_last_reading_outside_the_band(readings: list[float | None]) -> None:
    guard = Guard(THERMAL)
    expected = ""
    for reading in readings:
        if reading is not None and reading > THERMAL.hot_c:
            expected = "heat"
        elif reading is not None and reading < THERMAL.cool_c:
            expected = ""
        assert feel(guard, reading) == expected


@given(start=st.sampled_from([60.0, 90.0]), band=st.lists(st.floats(70.0, 80.0), max_size=40))
def test_within_the_band_nothing_flaps(start: float, band: list[float]) -> None:
    guard = Guard(THERMAL)
    first = feel(guard, start)
    assert {feel(guard, degrees) for degrees in band} <= {first}


# --- the supply --------------------------------------------------------------------------------------------------------------


def test_training_pauses_on_under_voltage_until_the_supply_has_sufficed_for_a_while() -> None:
    guard = Guard(THERMAL)
    assert feel(guard, weak=True) == "voltage"
    assert feel(guard, weak=False, mono=10) == "voltage"
    assert feel(guard, weak=True, mono=20) == "voltage"
    assert feel(guard, weak=False, mono=30) == "voltage"
    assert feel(guard, weak=False, mono=29 + CALM_S) == "voltage"
    assert feel(guard, weak=False, mono=30 + CALM_S) == ""


def test_where_weak_moments_are_only_counted_each_new_one_pauses_for_a_while() -> None:
    guard = Guard(THERMAL)

    def counted(events: int | None, mono: float) -> bool:
        guard.feel(Strain(None, None, events), at(mono))
        return bool(guard.weakness)

    assert not counted(3, 0), "those were before the agent looked"
    assert not counted(3, 5)
    assert counted(4, 10)
    assert counted(None, 12), "a look that tells nothing changes nothing"
    assert counted(4, 15)
    assert counted(5, 20)
    assert counted(5, 25)
    assert counted(5, 24 + CALM_S)
    assert not counted(5, 25 + CALM_S)


def test_a_board_that_tells_nothing_is_never_held_back() -> None:
    assert feel(Guard(THERMAL)) == ""


def test_a_reading_that_is_missing_changes_nothing() -> None:
    guard = Guard(THERMAL)
    assert feel(guard, 90.0, weak=True) == "heat"
    assert feel(guard, None, None, mono=1000.0) == "heat"
    assert guard.weakness


# --- windows and the clock ---------------------------------------------------------------------------------------------------


@pytest.fixture
def night() -> Guard:
    return Guard(THERMAL, (windows.parse("22:00-23:00"),))


def test_outside_of_the_windows_training_waits_and_a_plan_does_not(night: Guard) -> None:
    local = at(0).wall
    shut = next(
        local + hour * 3600 for hour in range(24) if not windows.open_at([windows.parse("22:00-23:00")], local + hour * 3600)
    )
    hold = night.hold("specialize", Now(shut, 0.0))
    assert hold == Hold("window", "outside of the training windows (22:00-23:00)")
    assert night.hold("plan", Now(shut, 0.0)) is None
    assert night.hold("specialize", Now(night.opens_at(Now(shut, 0.0)), 0.0)) is None


def test_without_a_clock_windows_keep_training_waiting_until_it_was_right_once(night: Guard) -> None:
    opened = night.opens_at(at())
    assert cause(night, now=Now(opened, 0.0, synchronized=False)) == "clock"
    night.feel(Strain(), Now(opened, 0.0, synchronized=True))
    assert cause(night, now=Now(opened, 1.0, synchronized=False)) == ""


def test_without_windows_the_clock_does_not_matter() -> None:
    assert cause(Guard(THERMAL), now=at(synchronized=False)) == ""


# --- the word of command, and what comes first -------------------------------------------------------------------------------


def test_a_word_of_command_holds_every_job_and_comes_first() -> None:
    guard = Guard(THERMAL, ordered_by="pause/1")
    feel(guard, 90.0)
    assert guard.hold("plan", at()) == guard.order == Hold("command", "on command (pause/1)")
    guard.ordered_by = ""
    assert cause(guard, "plan") == "heat"


@pytest.mark.parametrize(
    ("hold", "code"),
    [
        (Hold("heat", ""), ErrorCode.THERMAL),
        (Hold("window", ""), ErrorCode.OUTSIDE_WINDOW),
        (Hold("voltage", ""), ErrorCode.EXPIRED),
        (Hold("command", ""), ErrorCode.EXPIRED),
    ],
)
def test_what_a_command_fails_with_that_cannot_wait(hold: Hold, code: ErrorCode) -> None:
    assert hold.code(ErrorCode.EXPIRED) is code


def test_what_was_seen_long_ago_is_not_fresh() -> None:
    guard = Guard(THERMAL)
    assert not guard.fresh(at(0))
    guard.feel(Strain(), at(0))
    assert guard.fresh(at(FRESH_S))
    assert not guard.fresh(at(FRESH_S + 0.1))
