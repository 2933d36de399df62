from __future__ import annotations

import mmap

from reconvene_agent.worker import memory


def test_the_peak_is_that_of_a_stretch_of_work() -> None:
    base = memory.settled_mb()
    memory.start_peak()
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"\1" * (64 << 20))
        assert memory.resident_mb() > base + 60
    assert memory.peak_mb() > base + 60
    memory.settled_mb()
    memory.start_peak()
    assert memory.peak_mb() < base + 60


def test_memory_is_told_in_mebibytes() -> None:
    assert 1 < memory.resident_mb() <= memory.peak_mb() < 100_000
