from __future__ import annotations

from pathlib import Path

import pytest

from support.planting import boards, plant

__all__ = ["boards", "plant"]


@pytest.fixture(scope="session")
def shipped_profiles() -> Path:
    """Return the folder of the profiles that ship with the agent."""
    return Path(__file__).resolve().parents[3] / "device_profiles"
