from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon.spool import Spool
from support.disks import fill, tiny_disk

LIMIT = 65536
KIB = {"filler": "x" * 900}

Open = Callable[..., Spool]


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the spool, closing the one opened before."""
    last: list[Spool] = []

    def open_it(limit: int = LIMIT, boot_id: str = "boot-1") -> Spool:
        for spool in last:
            spool.close()
        last[:] = [Spool(tmp_path / "spool.db", boot_id, limit)]
        return last[0]

    yield open_it
    for spool in last:
        spool.close()


def documents(spool: Spool) -> list[dict[str, Any]]:
    return [msgspec.json.decode(record.payload) for record in spool.after(0, 1000)]


def kinds(spool: Spool) -> list[str]:
    return [record.topic for record in spool.after(0, 1000)]


def size_of(spool: Spool) -> int:
    return sum(len(record.topic) + len(record.payload) for record in spool.after(0, 100_000))


def test_records_come_in_order_with_boot_and_number(open_spool: Open) -> None:
    spool = open_spool()
    for number in range(3):
        spool.append("measurement", "m", {"n": number})
    assert documents(spool) == [{"n": n, "boot_id": "boot-1", "seq": n + 1} for n in range(3)]
    assert [record.seq for record in spool.after(1, 1)] == [2]


def test_a_document_cannot_fake_its_number(open_spool: Open) -> None:
    spool = open_spool()
    spool.append("event", "e", {"seq": 99, "boot_id": "other"})
    assert documents(spool) == [{"seq": 1, "boot_id": "boot-1"}]


def test_an_acknowledged_record_is_gone(open_spool: Open) -> None:
    spool = open_spool()
    for _ in range(3):
        spool.append("measurement", "m", {})
    spool.remove(2)
    spool.remove(2)
    spool.remove(77)
    assert [record.seq for record in spool.after(0, 9)] == [1, 3]


def test_numbers_never_repeat(open_spool: Open) -> None:
    spool = open_spool()
    for seq in range(1, 4):
        spool.append("measurement", "m", {})
        spool.remove(seq)
    spool = open_spool(boot_id="boot-2")
    assert documents(spool) == []
    spool.append("measurement", "m", {})
    assert documents(spool) == [{"boot_id": "boot-2", "seq": 4}]


def test_what_waits_survives_a_restart(open_spool: Open) -> None:
    open_spool().append("event", "e", {"x": 1})
    assert documents(open_spool()) == [{"x": 1, "boot_id": "boot-1", "seq": 1}]


def test_the_oldest_measurements_go_first_and_are_counted(open_spool: Open) -> None:
    spool = open_spool()
    spool.append("event", "e", KIB)
    for _ in range(100):
        spool.append("measurement", "m", KIB)
    seqs = [record.seq for record in spool.after(0, 1000)]
    assert seqs[0] == 1, "the event stays"
    assert seqs[1:] == list(range(seqs[1], 102)), "the newest measurements stay, without a gap"
    assert spool.dropped == 101 - len(seqs)
    assert documents(spool)[-1]["dropped_total"] > 0
    assert size_of(spool) <= LIMIT


def test_a_measurement_never_drives_out_an_event(open_spool: Open) -> None:
    spool = open_spool()
    while not spool.dropped:
        spool.append("event", "e", KIB)
    events = [record.seq for record in spool.after(0, 1000)]
    before = spool.dropped
    for _ in range(5):
        spool.append("measurement", "m", KIB)
    assert [record.seq for record in spool.after(0, 1000)] == events
    assert spool.dropped == before + 5, "it is the measurements that are lost"


def test_an_event_drives_out_measurements_and_then_older_events(open_spool: Open) -> None:
    spool = open_spool()
    for _ in range(100):
        spool.append("measurement", "m", KIB)
    for _ in range(100):
        spool.append("event", "e", KIB)
    assert set(kinds(spool)) == {"e"}
    assert [record.seq for record in spool.after(0, 1000)][-1] == 200


@pytest.mark.parametrize("size", [LIMIT, MAX_PAYLOAD])
def test_a_record_too_large_for_the_spool_does_not_empty_it(open_spool: Open, size: int) -> None:
    spool = open_spool(limit=LIMIT if size == LIMIT else 8 << 20)
    spool.append("event", "e", {"x": 1})
    spool.append("event", "e", {"filler": "x" * size})
    spool.append("event", "e", {"x": 2})
    assert [document["x"] for document in documents(spool)] == [1, 2]
    assert spool.dropped == 1
    assert documents(spool)[-1]["dropped_total"] == 1


def test_a_smaller_limit_after_a_restart_is_kept(open_spool: Open) -> None:
    spool = open_spool(limit=4 * LIMIT)
    for _ in range(200):
        spool.append("measurement", "m", KIB)
    spool = open_spool(limit=LIMIT)
    spool.append("measurement", "m", KIB)
    assert size_of(spool) <= LIMIT


appends = st.tuples(st.sampled_from(["measurement", "event"]), st.integers(0, 30_000))
steps = st.lists(st.one_of(appends, st.just("remove"), st.just("reopen")), max_size=40)


@given(steps)
def test_bounded_in_order_and_every_loss_counted(tmp_path_factory: pytest.TempPathFactory, todo: list[Any]) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool.db"
    spool = Spool(path, "boot", LIMIT)
    appended = removed = dropped = 0
    seen: set[int] = set()
    for step in todo:
        if step == "reopen":
            dropped += spool.dropped
            spool.close()
            spool = Spool(path, "boot", LIMIT)
        elif step == "remove":
            for record in spool.after(0, 1):
                spool.remove(record.seq)
                removed += 1
        else:
            spool.append(step[0], step[0], {"filler": "x" * step[1]})
            appended += 1
        left = [record.seq for record in spool.after(0, 1000)]
        assert left == sorted(set(left))
        assert size_of(spool) <= LIMIT
        assert len(left) == appended - removed - dropped - spool.dropped
        fresh = set(left) - seen
        assert not seen or not fresh or min(fresh) > max(seen), "a number is never used again"
        seen |= fresh
    spool.close()


def test_on_a_full_disk_records_are_dropped_and_counted_and_the_rest_stays(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        spool = Spool(disk / "spool.db", "boot", 8 << 20)
        for number in range(5):
            spool.append("event", "e", {"n": number})
        ballast = fill(disk)
        for _ in range(7):
            spool.append("event", "e", {"filler": "x" * 200_000})
        assert [document["n"] for document in documents(spool)] == list(range(5))
        assert spool.dropped == 7
        ballast.unlink()
        spool.append("event", "e", {"n": 5})
        assert documents(spool)[-1] == {"n": 5, "boot_id": "boot", "seq": 6, "dropped_total": 7}
        spool.close()


def test_making_room_that_does_not_help_drops_nothing_else(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        spool = Spool(disk / "spool.db", "boot", 100_000)
        for number in range(9):
            spool.append("measurement", "m", {"n": number, "filler": "x" * 10_000})
        fill(disk)
        for _ in range(3):
            spool.append("measurement", "m", {"filler": "x" * 90_000})
        assert [document["n"] for document in documents(spool)] == list(range(9))
        assert spool.dropped == 3
        spool.close()


def test_without_room_for_the_spool_nothing_begins(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        with pytest.raises(AgentError, match="no space left") as caught:
            Spool(disk / "spool.db", "boot", LIMIT)
        assert caught.value.code is ErrorCode.NO_DISK
