"""What every test shares: property tests that repeat themselves, and the helpers below ``tests/support``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from support.brokers import Mosquitto

sys.path.insert(0, str(Path(__file__).parent))

# A shell's background job ignores Ctrl-C, and so would every program that a test starts and stops by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return a Mosquitto that the tests of a module share."""
    from support.brokers import Mosquitto

    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as started:
        yield started
