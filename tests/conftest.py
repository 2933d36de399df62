"""What every test shares: settings of property tests, how tests are shared out, and the helpers below ``tests/support``."""

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

# What takes long to make and serves tests of several files.
DEAR_FIXTURES = ("disturbed", "prepared", "guest")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out to processes by file, those of a dear fixture together; files with whole runs come first.

    Without processes (pytest's ``-n``) this is but an order.
    """

    def group(item: pytest.Item) -> str:
        names = getattr(item, "fixturenames", ())
        return next((name for name in DEAR_FIXTURES if name in names), item.path.stem + str(item.path.parent))

    groups = {item: group(item) for item in items}
    long = {groups[item] for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: groups[item] not in long)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item]))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return a Mosquitto that the tests of a module share."""
    from support.brokers import Mosquitto

    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as started:
        yield started
