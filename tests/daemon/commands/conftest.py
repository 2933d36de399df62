"""A connected agent on the bench, for all tests of commands."""

from __future__ import annotations

import pytest

from reconvene_agent.daemon import events
from support.agents import AgentBench


@pytest.fixture
def bench() -> AgentBench:
    """Return a connected agent that has told the fleet about itself."""
    made = AgentBench()
    made.post(events.Started())
    made.connect()
    made.forget()
    return made
