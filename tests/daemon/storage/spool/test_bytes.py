from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core.messages import MAX_PAYLOAD
from support.spools import LIMIT, Begin, event, measurement, numbers, open_spool, record, size, topics, waiting

KIB = "x" * 900


def test_the_oldest_measurements_go_first_and_are_counted(begin: Begin) -> None:
    spool = begin()
    spool.append([event(filler=KIB)])
    spool.append([measurement(filler=KIB) for _ in range(100)])
    seqs = numbers(spool)
    assert seqs[0] == 1, "the event stays"
    assert seqs[1:] == list(range(seqs[1], 102)), "the newest measurements stay, without a gap"
    assert spool.dropped == 101 - len(seqs) > 0
    assert size(spool) <= LIMIT
    assert waiting(spool)[-1]["dropped_total"] > 0


def test_what_was_dropped_is_counted_over_restarts(begin: Begin) -> None:
    spool = begin()
    spool.append([measurement(filler=KIB) for _ in range(100)])
    dropped = spool.dropped
    spool = begin(boot_id="boot-2")
    spool.remove(numbers(spool))
    spool.append([event()])
    assert waiting(spool) == [{"boot_id": "boot-2", "seq": 101, "dropped_total": dropped}]


def test_that_records_are_dropped_is_said_once(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    spool = begin()
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            spool.append([measurement(filler=KIB)])
    assert [line.getMessage() for line in caplog.records] == [
        "records that waited for the broker were dropped, 1 so far: too many, too old, or the disk is full"
    ]


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_measurements_do_not_get_into_what_is_reserved_for_events(begin: Begin, share: float) -> None:
    spool = begin(spool_events_share=share)
    while size(spool) < share * LIMIT - 5000:
        spool.append([event(filler=KIB)])
    events = numbers(spool)
    spool.append([measurement(filler=KIB) for _ in range(200)])
    assert numbers(spool)[: len(events)] == events
    assert not [n for n, topic in zip(numbers(spool), topics(spool), strict=True) if topic == "e" and n not in events]


def test_what_is_reserved_is_not_left_empty(begin: Begin) -> None:
    spool = begin()
    spool.append([measurement(filler=KIB) for _ in range(200)])
    assert size(spool) > 0.9 * LIMIT
    spool.append([event(filler=KIB) for _ in range(200)])
    assert topics(spool).count("m") == pytest.approx(0.75 * len(topics(spool)), abs=3)


def test_events_beyond_their_share_give_way_to_measurements(begin: Begin) -> None:
    spool = begin()
    spool.append([event(filler=KIB) for _ in range(200)])
    assert set(topics(spool)) == {"e"}
    spool.append([measurement(filler=KIB) for _ in range(200)])
    kept = numbers(spool)
    assert topics(spool).count("e") == pytest.approx(0.25 * len(kept), abs=2)
    assert 200 in kept, "it is the newest events that stay"
    assert spool.dropped == 400 - len(kept)


@pytest.mark.parametrize("big", [LIMIT, MAX_PAYLOAD])
def test_a_record_too_large_for_the_spool_does_not_empty_it(begin: Begin, big: int) -> None:
    spool = begin(spool_bytes=LIMIT if big == LIMIT else 8 << 20)
    spool.append([event(x=1), event(filler="x" * big), event(x=2)])
    assert [document["x"] for document in waiting(spool)] == [1, 2]
    assert spool.dropped == 1
    assert waiting(spool)[-1]["dropped_total"] == 1


def test_a_measurement_that_only_fits_without_the_reserved_events_drops_nothing_else(begin: Begin) -> None:
    spool = begin(spool_events_share=0.5)
    spool.append([measurement(n=1), *(event(filler=KIB) for _ in range(30)), measurement(filler="x" * 40_000)])
    assert spool.dropped == 1
    assert len(numbers(spool)) == 31


def test_a_smaller_limit_after_a_restart_is_kept(begin: Begin) -> None:
    begin(spool_bytes=4 * LIMIT).append([measurement(filler=KIB) for _ in range(200)])
    spool = begin(spool_bytes=LIMIT)
    spool.append([measurement(filler=KIB)])
    assert size(spool) <= LIMIT


def test_the_file_is_bounded_too(begin: Begin, tmp_path: Path) -> None:
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
from reconvene_agent.daemon.storage.spool import Spool
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
