from __future__ import annotations

import os
import time
from pathlib import Path

from reconvene_agent.cli.doctor import clock
from reconvene_agent.cli.doctor.case import Case, Clocks
from support.doctoring import case, codes, told
from support.planting import Plant


def watched(folder: Path, plant: Plant, synchronised: bool = True, trusted: bool = False) -> Case:
    made = case(folder, agent={"trust_clock": trusted})
    made.root = plant({"run/systemd/timesync/synchronized": ""} if synchronised else {"run/x": ""})
    return made


def test_a_clock_that_is_kept_right(tmp_path: Path, plant: Plant) -> None:
    found = told(clock.check(watched(tmp_path, plant)), clock.GOOD)
    assert time.strftime("%Y-%m-%dT", time.gmtime()) in found.found


def test_a_clock_that_nobody_vouches_for(tmp_path: Path, plant: Plant) -> None:
    found = told(clock.check(watched(tmp_path, plant, synchronised=False)), clock.UNSYNCHRONISED)
    assert f"set agent.trust_clock in {tmp_path / 'config.toml'}" in found.advice


def test_without_a_configuration_the_clock_is_looked_at_as_well(plant: Plant) -> None:
    told(clock.check(Case(None, root=plant({"run/x": ""}))), clock.UNSYNCHRONISED)


def test_a_clock_that_is_trusted_all_the_same(tmp_path: Path, plant: Plant) -> None:
    assert codes(clock.check(watched(tmp_path, plant, synchronised=False, trusted=True))) == [clock.TRUSTED.code]


def test_a_clock_that_has_gone_back(tmp_path: Path, plant: Plant) -> None:
    made = watched(tmp_path, plant)
    assert made.config is not None
    written = made.config.state_dir / "journal.db"
    written.touch()
    later = time.time() + 7200
    os.utime(written, (later, later))
    found = list(clock.check(made))
    assert (
        f"but {written} was written at {time.strftime('%Y-%m-%dT%H:%M', time.gmtime(later))}" in told(found, clock.BEHIND).found
    )
    assert codes(found) == [clock.BEHIND.code], "a clock that is wrong is not called good"


def test_a_clock_that_jumped_while_doctor_looked(tmp_path: Path, plant: Plant) -> None:
    made = watched(tmp_path, plant)
    made.clocks = Clocks(time.time() - 3.0, time.monotonic() - 10.0)
    found = list(clock.check(made))
    assert "jumped by -7.0 s within the last 10 s" in told(found, clock.JUMPED).found
    assert codes(found) == [clock.JUMPED.code]
