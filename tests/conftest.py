"""What every test shares: settings of property tests, how tests are shared out, and the helpers below ``tests/support``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from support.brokers import Mosquitto

sys.path.insert(0, str(Path(__file__).parent))

# A shell's background job ignores Ctrl-C, and so would every program that a test starts and stops by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


# Folders whose files share what takes long to make.
TOGETHER = ("tests/cli", "tests/systemd")


def piece(file: str) -> str:
    """Return what is not divided and keeps its order: a file's folder, where that shares something, or the file."""
    together = next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), None)
    return together if together is not None and not file.endswith("/test_demo.py") else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the pieces with whole runs first, so that no process is left alone with one at the end."""
    pieces = {item: piece(item.nodeid.split("::")[0]) for item in items}
    long = {pieces[item] for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: pieces[item] not in long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share tests out to processes by file, as ``--dist loadfile`` says, but those of some folders in one piece.

    Marks of groups (``--dist loadgroup``) do nothing with pytest 9.2 and xdist 3.8.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return piece(super()._split_scope(nodeid))

    return Sharing(config, log)


@pytest.fixture(autouse=True, scope="session")
def nobody_steps_back() -> Iterator[None]:
    """Keep the tests' own process at its priority: it could not raise it again, and all later tests would be slow."""
    from reconvene_agent.worker.priority import Priority

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Priority, "lower", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Fail when what a test has started in this process goes on after it, where it would disturb others."""
    from support.waiting import until

    before = set(threading.enumerate())

    def every_thread_has_ended() -> bool:
        return set(threading.enumerate()) <= before

    yield
    until(every_thread_has_ended)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return a Mosquitto that the tests of a module share."""
    from support.brokers import Mosquitto

    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as started:
        yield started
