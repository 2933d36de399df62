"""A spool that can be closed and opened again, for all tests of the spool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.daemon.storage.spool import Spool
from support.spools import LIMIT, Begin, Clock, open_spool


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begin(tmp_path: Path, clock: Clock) -> Iterator[Begin]:
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
