from __future__ import annotations

import pytest

from reconvene_agent.worker.planning.speedup import Dense, Speedup
from support.models import RUNTIME, ModelSpec, exporter, opened, pruned

SPEC = ModelSpec("vgg11", (1, 32, 32), 10)
ALIKE = pytest.approx(1.0, abs=0.3)


@pytest.fixture
def dense() -> Dense:
    return Dense(opened(SPEC), 40 << 20, exporter(SPEC), RUNTIME)


def test_a_network_of_wide_layers_is_faster_when_it_is_pruned(dense: Dense) -> None:
    found = dense.find(pruned(SPEC, 0.95, sensitive="shrink"), 161.0, 0.05)
    assert found.signature is None
    assert found.document()["ratio"] > 1.5


def test_a_network_that_was_left_as_it_is_is_recognised(dense: Dense) -> None:
    # Both are the same network; nothing but noise can make one of them faster, and no noise does so each time.
    found = next(
        (found for _ in range(5) if (found := dense.find(pruned(SPEC, 0.0), None, 0.05)).document()["ratio"] == ALIKE), None
    )
    assert found is not None
    assert (found.signature is None) is (found.document()["ratio"] >= 1.05)


def test_where_the_dense_model_does_not_fit_nothing_is_measured(dense: Dense) -> None:
    found = dense.find(pruned(SPEC, 0.9), 159.0, 0.05)
    assert found == Speedup(why_not="the dense model takes 160 MiB to be measured, 159 are available")
    assert found.signature is None
    assert found.document() == {"dense": None, "ratio": None, "why_not": found.why_not}
