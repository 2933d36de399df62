"""What the demo says of what it hears, and the table in the end."""

from __future__ import annotations

from typing import Any

import pytest

from reconvene_agent.cli.demo import story
from reconvene_agent.cli.demo.controller import Message
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Progress

LATENCY = {"p50": 1.0, "p95": 2.0}
HEARD: dict[str, tuple[str, dict[str, Any], str]] = {
    "an epoch": (
        "e/epoch",
        {"epoch": 1, "epochs": 5, "loss": 1.5, "accuracy": 0.5},
        "← e/epoch                 epoch 1/5: loss 1.500, held-out accuracy 50.0%",
    ),
    "a plan": (
        "e/plan_chosen",
        {"chosen": {"sparsity": 0.85, "width_multiplier": 1.0, "params": 1000, "latency_ms": LATENCY}},
        "← e/plan_chosen           plan: sparsity 0.85, 1,000 parameters, p95 2 ms",
    ),
    "a release": (
        "e/model_promoted",
        {"version": "r0001-x", "bytes": 4096, "latency_ms": LATENCY},
        "← e/model_promoted        released r0001-x: 4,096 bytes, p95 2 ms",
    ),
    "health": ("status/health", {"status": "up", "state": "idle"}, "← status/health           up, idle"),
    "no health": ("status/health", {}, "← status/health           None, "),
    "a twin": (
        "twin/hardware",
        dict.fromkeys("abcdefgh", 1),
        "← twin/hardware           a, b, c, d, e, f",
    ),
    "a measurement": (
        "m/system",
        {"memory_available_mb": 1000.4, "agent_rss_mb": 25.96},
        "← m/system                1000 MiB free, agent 26.0 MiB",
    ),
    "another measurement": ("m/training", {"loss": 1}, ""),
    "a step": (
        "cmd/specialize/demo-1",
        {"status": "executing", "step": "train", "rev": 3},
        "← cmd/specialize/demo-1   executing train",
    ),
    "an end": (
        "cmd/specialize/demo-1",
        {"status": "successful", "rev": 9, "step": "promote"},
        "← cmd/specialize/demo-1   successful",
    ),
    "a failure": (
        "cmd/specialize/demo-1",
        {"status": "failed", "rev": 9, "reason": "no room"},
        "← cmd/specialize/demo-1   failed no room",
    ),
    "an echo of our own": ("cmd/specialize/demo-1", {"status": "init", "args": {}}, ""),
    "a cleared command": ("cmd/specialize/demo-1", {}, ""),
    "the registration": ("", {"@type": "service"}, ""),
}


@pytest.mark.parametrize("what", HEARD)
def test_a_message_in_words(what: str) -> None:
    topic, document, line = HEARD[what]
    assert story.heard(Message(topic, document)) == line


def test_only_a_commands_step_moves_the_bar() -> None:
    state = {"status": "executing", "step": "train", "progress": 0.5}
    assert story.bar(Message("cmd/specialize/demo-1", state)) == Progress(Step.TRAIN, 0.5)
    assert story.bar(Message("cmd/specialize/demo-1", {"status": "init"})) is None
    assert story.bar(Message("m/training", state)) is None


def side(parameters: int, size: int, memory_mb: float, speed: float, accuracy: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one side of a bench, and the result of the run that made the model."""
    training = {"memory_mb": memory_mb, "images_per_second": speed, "accuracy": accuracy}
    scale = parameters / 1000
    return {"params": parameters, "latency_ms": {"p50": scale, "p95": 2 * scale}}, {
        "release": {"bytes": size},
        "training": training,
    }


def test_the_table_sets_dense_and_pruned_side_by_side() -> None:
    dense_side, dense = side(20_000, 8 << 20, 200, 100, 0.95)
    pruned_side, pruned = side(1_000, 1 << 20, 0, 250, 0.94)
    assert story.table(dense, pruned, {"dense": dense_side, "pruned": pruned_side}) == [
        ("parameters", "20,000", "1,000", "20.0× less"),
        ("bytes on disk", "8.00 MiB", "1.00 MiB", "8.0× less"),
        ("latency p50", "20.000 ms", "1.000 ms", "20.0× less"),
        ("latency p95", "40.000 ms", "2.000 ms", "20.0× less"),
        ("training memory", "200 MiB", "0 MiB", ""),
        ("training speed", "100 images/s", "250 images/s", "2.5× faster"),
        ("held-out accuracy", "95.0%", "94.0%", "-1.0 points"),
    ]
