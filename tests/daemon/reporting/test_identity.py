from __future__ import annotations

import os
from pathlib import Path

from reconvene_agent.daemon.reporting import identity
from support.agents import TOPICS


def test_the_boot_has_the_kernels_id(tmp_path: Path) -> None:
    file = tmp_path / "proc/sys/kernel/random/boot_id"
    file.parent.mkdir(parents=True)
    file.write_text("one-two-three\n")
    assert identity.boot_id(tmp_path) == "one-two-three"
    assert identity.boot_id() == identity.boot_id()


def test_where_the_kernel_tells_none_it_is_new_each_time(tmp_path: Path) -> None:
    assert identity.boot_id(tmp_path) != identity.boot_id(tmp_path)


def test_every_start_is_a_session_of_its_own() -> None:
    first, second = (identity.of_this_process(TOPICS, "1.2") for _ in range(2))
    assert first.session != second.session
    assert (first.boot_id, first.pid, first.version) == (second.boot_id, os.getpid(), "1.2")
