"""The worker's tests run torch in this process, on one thread, so that they neither wait for each other nor differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from reconvene_agent.worker import priority

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def nobody_steps_back() -> Iterator[None]:
    """Keep the tests' own process at its priority: it could not raise it again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(priority, "NICENESS", 0)
        yield
