from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconvene_agent.core.plan import Candidate
from reconvene_agent.core.release import Latency
from reconvene_agent.core.signatures import FASTER, Signature, accuracy_collapse, no_speedup

CHOSEN = Candidate(sparsity=0.9, width_multiplier=0.7, params=1000, bytes=4000, macs=9, memory_mb=1.0, training_memory_mb=9.0)


def layer(name: str, before: int, after: int, verdict: str = "resilient") -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "width_before": before, "width_after": after}


def test_a_missing_speed_up_is_told_in_figures() -> None:
    found = no_speedup(Latency(2.0, 3.0), Latency(1.99, 3.0))
    assert found is not None
    assert found.name == "no_speedup"
    assert "p50 1.99 ms against 2 ms dense (1.01×)" in found.text


@pytest.mark.parametrize("ratio", [FASTER, 1.5, 20.0])
def test_what_is_faster_is_no_failure(ratio: float) -> None:
    assert no_speedup(Latency(ratio, 3.0), Latency(1.0, 3.0)) is None


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([layer("a", 64, 64, "sensitive"), layer("b", 64, 4), layer("c", 64, 8)], "at the minimum width of 4: b 64→4; "),
        ([layer("a", 64, 32, "sensitive"), layer("b", 64, 8)], "sensitive layers were narrowed: a 64→32; "),
        ([layer("a", 64, 32), layer("b", 64, 8), layer("c", 9, 9)], "narrowed most: b 64→8, a 64→32; "),
        ([layer("a", 4, 4)], "no layer was narrowed: look at the data and the training; "),
        ([layer(f"l{n}", 64, 4) for n in range(6)], "at the minimum width of 4: l0 64→4, l1 64→4, l2 64→4, l3 64→4 and 2 more; "),
    ],
)
def test_the_layers_to_blame_are_named(layers: list[dict[str, Any]], told: str) -> None:
    found = accuracy_collapse(layers, 4, CHOSEN, [CHOSEN])
    assert found == Signature("accuracy_collapse", f"{told}try a lower sparsity or more training")


def test_the_next_larger_candidate_is_suggested() -> None:
    smaller, larger = replace(CHOSEN, params=10, sparsity=0.95), replace(CHOSEN, params=2000, sparsity=0.8, feasible=True)
    largest, over = replace(CHOSEN, params=5000, sparsity=0.0), replace(larger, params=1500, feasible=False, why="too large")
    told = accuracy_collapse([], 4, CHOSEN, [smaller, largest, over, larger, CHOSEN]).text
    assert told.endswith("try width ×0.7, sparsity 0.8, which the budget may allow")
    told = accuracy_collapse([], 4, CHOSEN, [smaller, over, CHOSEN]).text
    assert told.endswith("try width ×0.7, sparsity 0.8, for which the budget must be raised: too large")
