from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconvene_agent.daemon.probe import clock

MARK = "run/systemd/timesync/synchronized"


def test_the_mark_of_the_time_service(plant: Callable[..., Path]) -> None:
    assert clock.clock_synchronized(plant({MARK: ""}))


def test_a_copied_tree_without_the_mark_is_not_synchronized(plant: Callable[..., Path]) -> None:
    assert not clock.clock_synchronized(plant({}))


def test_a_mark_that_cannot_be_looked_at_is_none(plant: Callable[..., Path]) -> None:
    assert not clock.clock_synchronized(plant({"run/systemd": "a file, not a folder"}))


def test_the_kernel_is_asked_about_this_machine_alone(plant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_kernel_synchronized", lambda: True)
    assert clock.clock_synchronized(Path("/"))
    assert not clock.clock_synchronized(plant({}))


def test_this_machine_answers_without_failing() -> None:
    assert clock.clock_synchronized(Path("/")) in (True, False)


@pytest.mark.parametrize(
    ("state", "status", "synchronized"),
    [(0, 0x0001, True), (1, 0, True), (5, 0x0040, False), (5, 0, False), (0, 0x0040, False), (-1, 0, False)],
)
def test_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch, state: int, status: int, synchronized: bool) -> None:
    def adjtimex(reference: object) -> int:
        timex = reference._obj  # type: ignore[attr-defined]
        assert timex.modes == 0, "it must only ask, never set"
        timex.status = status
        return state

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(adjtimex=adjtimex))
    assert clock._kernel_synchronized() is synchronized


def test_a_c_library_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not clock._kernel_synchronized()
