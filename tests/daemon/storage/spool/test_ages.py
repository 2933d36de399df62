from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.daemon.storage.spool import since_boot
from support.spools import Begin, Clock, event, measurement, numbers, open_spool, waiting

DAY_S = 24 * 3600.0


def test_what_is_too_old_goes_and_is_counted(begin: Begin, clock: Clock) -> None:
    spool = begin(spool_days=2.0)
    for _ in range(5):
        spool.append([measurement(), event()])
        clock.seconds += DAY_S
    clock.seconds -= DAY_S
    assert numbers(spool) == [5, 6, 7, 8, 9, 10]
    assert spool.dropped == 4
    assert [document.get("dropped_total", 0) for document in waiting(spool)] == [0, 0, 2, 2, 4, 4]


def test_more_that_is_too_old_than_may_go_at_once_goes_little_by_little(begin: Begin, clock: Clock) -> None:
    spool = begin(spool_days=1.0, spool_bytes=8 << 20)
    spool.append([measurement()] * 2500)
    clock.seconds += 1.1 * DAY_S
    for left in (1501, 502, 3, 4):
        spool.append([measurement()])
        assert len(numbers(spool)) == left


def test_setting_the_clock_changes_no_age(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for wall in (4e9, 0.0, 1.7e9):
        monkeypatch.setattr("time.time", lambda wall=wall: wall)
        spool = open_spool(tmp_path / "spool.db", clock=since_boot, spool_days=1.0)  # type: ignore[arg-type]
        spool.append([measurement()])
        spool.close()
    spool = open_spool(tmp_path / "spool.db")
    assert len(numbers(spool)) == 3
    spool.close()


def test_ages_go_on_over_restarts_and_boots(begin: Begin, clock: Clock) -> None:
    clock.seconds = 100 * DAY_S
    begin(spool_days=3.0).append([measurement()])
    clock.seconds += 1 * DAY_S
    begin(spool_days=3.0).append([measurement()])  # the agent was away for a day
    assert waiting(begin())[-1]["seq"] - waiting(begin())[0]["seq"] == 1
    clock.seconds = 0.0
    spool = begin(boot_id="boot-2", spool_days=3.0)  # the board was
    spool.append([measurement()])
    clock.seconds = 1.9 * DAY_S
    spool.append([measurement()])
    assert spool.dropped == 0
    clock.seconds = 2.1 * DAY_S
    spool = begin(boot_id="boot-2", spool_days=3.0)
    spool.append([measurement()])
    assert spool.dropped == 1, "it was there for a day before the boot and for two after it"


def test_many_boots_keep_nothing_for_ever(begin: Begin, clock: Clock) -> None:
    for boot in range(20):
        clock.seconds = 0.0
        spool = begin(boot_id=f"boot-{boot}", spool_days=2.0)
        for _ in range(5):
            spool.append([measurement()])
            clock.seconds += 0.1 * DAY_S
    assert len(numbers(spool)) == pytest.approx(2.0 / 0.08, abs=5)
