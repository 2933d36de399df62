from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.spools import EVERYTHING, Begin, Clock, event, measurement, numbers, open_spool, topics, waiting

KIB = "x" * 900


def test_records_come_in_order_with_boot_and_number(begin: Begin) -> None:
    spool = begin()
    spool.append([measurement(n=0), event(n=1)])
    spool.append([])
    spool.append([measurement(n=2)])
    assert waiting(spool) == [{"n": n, "boot_id": "boot-1", "seq": n + 1} for n in range(3)]
    assert topics(spool) == ["m", "e", "m"]
    assert spool.last == 3


def test_a_few_are_fetched_at_a_time(begin: Begin) -> None:
    spool = begin()
    spool.append([measurement(filler=KIB) for _ in range(10)])
    assert [found.seq for found in spool.after(1, 2, EVERYTHING)] == [2, 3]
    assert [found.seq for found in spool.after(0, 9, 3 * 1000)] == [1, 2, 3]
    assert [found.seq for found in spool.after(8, 9, 1)] == [9], "one record always goes"
    assert spool.after(10, 9, EVERYTHING) == []


def test_a_document_cannot_fake_its_number(begin: Begin) -> None:
    spool = begin()
    spool.append([event(seq=99, boot_id="other")])
    assert waiting(spool) == [{"seq": 1, "boot_id": "boot-1"}]


def test_acknowledged_records_are_gone(begin: Begin) -> None:
    spool = begin()
    spool.append([measurement()] * 4)
    spool.remove([2, 2, 77, 3])
    spool.remove([2])
    assert numbers(spool) == [1, 4]


def test_numbers_never_repeat(begin: Begin) -> None:
    spool = begin()
    for seq in range(1, 4):
        spool.append([measurement()])
        spool.remove([seq])
    spool = begin(boot_id="boot-2")
    assert waiting(spool) == []
    spool.append([measurement()])
    assert waiting(spool) == [{"boot_id": "boot-2", "seq": 4}]


def test_numbers_do_not_repeat_within_a_boot_when_the_file_was_lost(begin: Begin, clock: Clock, tmp_path: Path) -> None:
    clock.seconds = 1000.0
    spool = begin()
    spool.append([measurement()] * 1000)
    last = spool.last
    (tmp_path / "spool.db").unlink()
    clock.seconds += 2.0
    spool = begin()
    spool.append([measurement()])
    assert numbers(spool)[0] > last


def test_what_waits_survives_a_restart(begin: Begin) -> None:
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
