from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.daemon.storage.database import DatabaseFullError
from support.disks import fill, tiny_disk
from support.spools import LIMIT, event, measurement, numbers, open_spool, size, waiting

KIB = "x" * 900


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
