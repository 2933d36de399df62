from __future__ import annotations

import logging
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.database import DatabaseFullError
from reconvene_agent.daemon.spool import Spool, since_boot
from support.disks import fill, tiny_disk
from support.spools import EVERYTHING, LIMIT, Clock, event, measurement, numbers, open_spool, record, size, topics, waiting

KIB = "x" * 900
DAY_S = 24 * 3600.0

Open = Callable[..., Spool]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begin(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Return a function that opens the spool, closing the one opened before."""
    last: list[Spool] = []

    def open_it(boot_id: str = "boot-1", **bounds: Any) -> Spool:
        for spool in last:
            spool.close()
        last[:] = [open_spool(tmp_path / "spool.db", boot_id, clock, **{"spool_bytes": LIMIT, **bounds})]
        return last[0]

    yield open_it
    for spool in last:
        spool.close()


def test_records_come_in_order_with_boot_and_number(begin: Open) -> None:
    spool = begin()
    spool.append([measurement(n=0), event(n=1)])
    spool.append([])
    spool.append([measurement(n=2)])
    assert waiting(spool) == [{"n": n, "boot_id": "boot-1", "seq": n + 1} for n in range(3)]
    assert topics(spool) == ["m", "e", "m"]
    assert spool.last == 3


def test_a_few_are_fetched_at_a_time(begin: Open) -> None:
    spool = begin()
    spool.append([measurement(filler=KIB) for _ in range(10)])
    assert [found.seq for found in spool.after(1, 2, EVERYTHING)] == [2, 3]
    assert [found.seq for found in spool.after(0, 9, 3 * 1000)] == [1, 2, 3]
    assert [found.seq for found in spool.after(8, 9, 1)] == [9], "one record always goes"
    assert spool.after(10, 9, EVERYTHING) == []


def test_a_document_cannot_fake_its_number(begin: Open) -> None:
    spool = begin()
    spool.append([event(seq=99, boot_id="other")])
    assert waiting(spool) == [{"seq": 1, "boot_id": "boot-1"}]


def test_acknowledged_records_are_gone(begin: Open) -> None:
    spool = begin()
    spool.append([measurement()] * 4)
    spool.remove([2, 2, 77, 3])
    spool.remove([2])
    assert numbers(spool) == [1, 4]


def test_numbers_never_repeat(begin: Open) -> None:
    spool = begin()
    for seq in range(1, 4):
        spool.append([measurement()])
        spool.remove([seq])
    spool = begin(boot_id="boot-2")
    assert waiting(spool) == []
    spool.append([measurement()])
    assert waiting(spool) == [{"boot_id": "boot-2", "seq": 4}]


def test_numbers_do_not_repeat_within_a_boot_when_the_file_was_lost(begin: Open, clock: Clock, tmp_path: Path) -> None:
    clock.seconds = 1000.0
    spool = begin()
    spool.append([measurement()] * 1000)
    last = spool.last
    (tmp_path / "spool.db").unlink()
    clock.seconds += 2.0
    spool = begin()
    spool.append([measurement()])
    assert numbers(spool)[0] > last


def test_what_waits_survives_a_restart(begin: Open) -> None:
    begin().append([event(x=1)])
    assert waiting(begin()) == [{"x": 1, "boot_id": "boot-1", "seq": 1}]


@pytest.mark.parametrize("tail", [0, 50_000])
def test_what_a_power_cut_leaves_is_whole_and_in_order(tmp_path: Path, tail: int) -> None:
    """The log of what was written last is cut off anywhere, or goes on in zeros: what the kernel had not written out."""
    draw = random.Random(tail)
    spool = open_spool(tmp_path / "spool.db")
    for number in range(0, 400, 4):
        spool.append([measurement(n=number + index, filler="x" * draw.randrange(3000)) for index in range(4)])
    files = {name: (tmp_path / name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    spool.close()
    kept = []
    for cut in range(12):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "spool.db").write_bytes(files["spool.db"])
        log = files["spool.db-wal"]
        (folder / "spool.db-wal").write_bytes(log[: draw.randrange(len(log))] + bytes(tail))
        spool = open_spool(folder / "spool.db", "boot-2")
        spool.append([measurement(n="new")])
        found = waiting(spool)
        assert [document["n"] for document in found] == [*range(len(found) - 1), "new"]
        assert (len(found) - 1) % 4 == 0, "a batch is there as a whole or not at all"
        assert found[-1]["seq"] == len(found)
        kept.append(len(found))
        spool.close()
    assert len(set(kept)) > 6


# --- bounded in bytes ---------------------------------------------------------------------------------------------------------


def test_the_oldest_measurements_go_first_and_are_counted(begin: Open) -> None:
    spool = begin()
    spool.append([event(filler=KIB)])
    spool.append([measurement(filler=KIB) for _ in range(100)])
    seqs = numbers(spool)
    assert seqs[0] == 1, "the event stays"
    assert seqs[1:] == list(range(seqs[1], 102)), "the newest measurements stay, without a gap"
    assert spool.dropped == 101 - len(seqs) > 0
    assert size(spool) <= LIMIT
    assert waiting(spool)[-1]["dropped_total"] > 0


def test_what_was_dropped_is_counted_over_restarts(begin: Open) -> None:
    spool = begin()
    spool.append([measurement(filler=KIB) for _ in range(100)])
    dropped = spool.dropped
    spool = begin(boot_id="boot-2")
    spool.remove(numbers(spool))
    spool.append([event()])
    assert waiting(spool) == [{"boot_id": "boot-2", "seq": 101, "dropped_total": dropped}]


def test_that_records_are_dropped_is_said_once(begin: Open, caplog: pytest.LogCaptureFixture) -> None:
    spool = begin()
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            spool.append([measurement(filler=KIB)])
    assert [line.getMessage() for line in caplog.records] == [
        "records that waited for the broker were dropped, 1 so far: too many, too old, or the disk is full"
    ]


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_measurements_do_not_get_into_what_is_reserved_for_events(begin: Open, share: float) -> None:
    spool = begin(spool_events_share=share)
    while size(spool) < share * LIMIT - 5000:
        spool.append([event(filler=KIB)])
    events = numbers(spool)
    spool.append([measurement(filler=KIB) for _ in range(200)])
    assert numbers(spool)[: len(events)] == events
    assert not [n for n, topic in zip(numbers(spool), topics(spool), strict=True) if topic == "e" and n not in events]


def test_what_is_reserved_is_not_left_empty(begin: Open) -> None:
    spool = begin()
    spool.append([measurement(filler=KIB) for _ in range(200)])
    assert size(spool) > 0.9 * LIMIT
    spool.append([event(filler=KIB) for _ in range(200)])
    assert topics(spool).count("m") == pytest.approx(0.75 * len(topics(spool)), abs=3)


def test_events_beyond_their_share_give_way_to_measurements(begin: Open) -> None:
    spool = begin()
    spool.append([event(filler=KIB) for _ in range(200)])
    assert set(topics(spool)) == {"e"}
    spool.append([measurement(filler=KIB) for _ in range(200)])
    kept = numbers(spool)
    assert topics(spool).count("e") == pytest.approx(0.25 * len(kept), abs=2)
    assert 200 in kept, "it is the newest events that stay"
    assert spool.dropped == 400 - len(kept)


@pytest.mark.parametrize("big", [LIMIT, MAX_PAYLOAD])
def test_a_record_too_large_for_the_spool_does_not_empty_it(begin: Open, big: int) -> None:
    spool = begin(spool_bytes=LIMIT if big == LIMIT else 8 << 20)
    spool.append([event(x=1), event(filler="x" * big), event(x=2)])
    assert [document["x"] for document in waiting(spool)] == [1, 2]
    assert spool.dropped == 1
    assert waiting(spool)[-1]["dropped_total"] == 1


def test_a_measurement_that_only_fits_without_the_reserved_events_drops_nothing_else(begin: Open) -> None:
    spool = begin(spool_events_share=0.5)
    spool.append([measurement(n=1), *(event(filler=KIB) for _ in range(30)), measurement(filler="x" * 40_000)])
    assert spool.dropped == 1
    assert len(numbers(spool)) == 31


def test_a_smaller_limit_after_a_restart_is_kept(begin: Open) -> None:
    begin(spool_bytes=4 * LIMIT).append([measurement(filler=KIB) for _ in range(200)])
    spool = begin(spool_bytes=LIMIT)
    spool.append([measurement(filler=KIB)])
    assert size(spool) <= LIMIT


def test_the_file_is_bounded_too(begin: Open, tmp_path: Path) -> None:
    spool = begin(spool_bytes=1 << 20)
    for _ in range(300):
        spool.append([event(n=1), *(measurement(filler="x" * 300) for _ in range(50))])
    assert spool.dropped > 10_000
    assert (tmp_path / "spool.db").stat().st_size < 2 * (1 << 20)
    assert (tmp_path / "spool.db-wal").stat().st_size < 8 * (1 << 20)


appends = st.lists(st.tuples(st.sampled_from(["measurement", "event"]), st.integers(0, 30_000)), min_size=1, max_size=4)
steps = st.lists(st.one_of(appends, st.just("remove"), st.just("reopen"), st.just("reboot")), max_size=40)


@settings(max_examples=30)
@given(steps)
def test_bounded_in_order_and_every_loss_counted(tmp_path_factory: pytest.TempPathFactory, todo: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = open_spool(folder / "spool.db", spool_bytes=LIMIT)
    appended = removed = boots = 0
    seen: set[int] = set()
    for step in todo:
        if step in ("reopen", "reboot"):
            spool.close()
            boots += step == "reboot"
            spool = open_spool(folder / "spool.db", f"boot-{boots}", spool_bytes=LIMIT)
        elif step == "remove":
            gone = numbers(spool)[:2]
            spool.remove(gone)
            removed += len(gone)
        else:
            spool.append([record(kind, filler="x" * filler) for kind, filler in step])
            appended += len(step)
        left = numbers(spool)
        assert left == sorted(set(left))
        assert size(spool) <= LIMIT
        assert sum(spool._account.bytes.values()) == size(spool) + 32 * len(left)
        assert len(left) == appended - removed - spool.dropped
        fresh = set(left) - seen
        assert not seen or not fresh or min(fresh) > max(seen), "a number is never used again"
        seen |= fresh
    spool.close()
    shutil.rmtree(folder)


_OPEN_AND_READ = """
import re, sys
from pathlib import Path
from reconvene_agent.core.config import TelemetrySection
from reconvene_agent.daemon.spool import Spool
def peak_kib():
    return int(re.search("VmHWM: *(\\d+)", Path("/proc/self/status").read_text().replace("\\t", " "))[1])
Spool(Path(sys.argv[1]), "boot", TelemetrySection()).close()
before = peak_kib()
spool, seq = Spool(Path(sys.argv[2]), "boot", TelemetrySection(spool_bytes=1 << 30)), 0
while found := spool.after(seq, 40, 256 * 1024):
    seq = found[-1].seq
print(peak_kib() - before)
"""


def test_a_large_spool_is_opened_and_read_in_little_memory(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "large.db", spool_bytes=1 << 30)
    for _ in range(20):
        spool.append([measurement(filler="x" * 250_000) for _ in range(10)])
    spool.close()
    words = [sys.executable, "-c", _OPEN_AND_READ, str(tmp_path / "small.db"), str(tmp_path / "large.db")]
    grown_kib = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert grown_kib < 4096


# --- bounded in age -----------------------------------------------------------------------------------------------------------


def test_what_is_too_old_goes_and_is_counted(begin: Open, clock: Clock) -> None:
    spool = begin(spool_days=2.0)
    for _ in range(5):
        spool.append([measurement(), event()])
        clock.seconds += DAY_S
    clock.seconds -= DAY_S
    assert numbers(spool) == [5, 6, 7, 8, 9, 10]
    assert spool.dropped == 4
    assert [document.get("dropped_total", 0) for document in waiting(spool)] == [0, 0, 2, 2, 4, 4]


def test_more_that_is_too_old_than_may_go_at_once_goes_little_by_little(begin: Open, clock: Clock) -> None:
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


def test_ages_go_on_over_restarts_and_boots(begin: Open, clock: Clock) -> None:
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


def test_many_boots_keep_nothing_for_ever(begin: Open, clock: Clock) -> None:
    for boot in range(20):
        clock.seconds = 0.0
        spool = begin(boot_id=f"boot-{boot}", spool_days=2.0)
        for _ in range(5):
            spool.append([measurement()])
            clock.seconds += 0.1 * DAY_S
    assert len(numbers(spool)) == pytest.approx(2.0 / 0.08, abs=5)


# --- bounded by the disk ------------------------------------------------------------------------------------------------------


def test_with_little_free_disk_the_spool_grows_no_more(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "16m") as disk:
        spool = open_spool(disk / "spool.db", spool_min_free_bytes=4 << 20, spool_events_share=0.0)
        spool.append([measurement(filler=KIB) for _ in range(500)])
        ballast = fill(disk, leave=3 << 20)
        before = size(spool)
        for _ in range(3):
            spool.append([measurement(filler=KIB) for _ in range(500)])
        assert before - 2000 < size(spool) <= before
        assert spool.dropped == pytest.approx(1500, abs=20)
        assert numbers(spool)[-1] == 2000, "the newest are kept"
        ballast.unlink()
        spool.append([measurement(filler=KIB) for _ in range(500)])
        assert size(spool) > 1.5 * before
        spool.close()


def test_a_little_may_wait_however_full_the_disk(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool.db", spool_min_free_bytes=1 << 60)
    spool.append([measurement(filler=KIB) for _ in range(500)])
    assert 0.9 * LIMIT < size(spool) <= LIMIT
    spool.close()


def test_on_a_full_disk_records_are_dropped_and_counted_and_the_rest_stays(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        spool = open_spool(disk / "spool.db")
        spool.append([event(n=number) for number in range(5)])
        ballast = fill(disk)
        for _ in range(7):
            spool.append([event(filler="x" * 200_000)])
        assert [document["n"] for document in waiting(spool)] == list(range(5))
        assert spool.dropped == 7
        ballast.unlink()
        spool.append([event(n=5)])
        assert waiting(spool)[-1] == {"n": 5, "boot_id": "boot", "seq": 6, "dropped_total": 7}
        spool.close()
        spool = open_spool(disk / "spool.db")
        assert (spool.dropped, len(numbers(spool))) == (7, 6)
        spool.close()


def test_on_a_full_disk_what_still_fits_of_a_batch_is_kept(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        spool = open_spool(disk / "spool.db")
        spool.append([event()])
        fill(disk, leave=64 * 1024)
        spool.append([event(n=1), event(filler="x" * 200_000), event(n=2)])
        assert [document.get("n") for document in waiting(spool)] == [None, 1, 2]
        assert spool.dropped == 1
        spool.close()


def test_what_cannot_be_removed_on_a_full_disk_stays(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        spool = open_spool(disk / "spool.db")
        spool.append([event(filler="x" * 50_000) for _ in range(4)])
        before = size(spool)
        ballast = fill(disk)

        def churn() -> None:
            while True:  # some room is left inside of the log
                spool.remove(numbers(spool)[:1])
                spool.append([event(filler="x" * 50_000)])

        with pytest.raises(DatabaseFullError):
            churn()
        assert size(spool) == pytest.approx(before, abs=1000)
        ballast.unlink()
        spool.remove(numbers(spool))
        assert numbers(spool) == []
        spool.close()


def test_making_room_that_does_not_help_drops_nothing_else(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        spool = open_spool(disk / "spool.db", spool_bytes=100_000, spool_events_share=0.0)
        spool.append([measurement(n=number, filler="x" * 10_000) for number in range(9)])
        fill(disk)
        for _ in range(3):
            spool.append([measurement(filler="x" * 90_000)])
        assert [document["n"] for document in waiting(spool)] == list(range(9))
        assert spool.dropped == 3
        spool.close()


def test_without_room_for_the_spool_nothing_begins(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        with pytest.raises(AgentError, match="no space left") as caught:
            open_spool(disk / "spool.db")
        assert caught.value.code is ErrorCode.NO_DISK
