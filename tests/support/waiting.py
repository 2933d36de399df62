"""Waiting for what announces itself to nobody: asked for again and again, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T], seconds: float = 10.0) -> T:
    """Return the first true value of ``probe``; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"{getattr(probe, '__name__', 'it')} did not come true within {seconds:g} s"
        time.sleep(0.01)
    return found
