from __future__ import annotations

import os

import pytest

from support.doctoring import everybodys
from support.planting import boards, plant

__all__ = ["boards", "everybodys", "plant"]


@pytest.fixture
def as_root() -> None:
    """Skip where files of several users cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: what other users may do, since only root can act as them")
