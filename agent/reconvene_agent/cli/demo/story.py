"""What the demo tells while it runs: the agent's messages in plain words, and the table at the end."""

from __future__ import annotations

from typing import Any

from reconvene_agent.cli.demo.controller import Message
from reconvene_agent.cli.output import size
from reconvene_agent.cli.progress import describe
from reconvene_agent.core.job import Status, Step
from reconvene_agent.core.protocol import Happening
from reconvene_agent.core.protocol import Progress as ProgressMessage

# The events that the controller hears under these names carry what the worker's own events carry.
EVENTS = {"plan_chosen": "plan", "model_pruned": "prune", "epoch": "epoch", "model_promoted": "release", "warning": "warning"}


def heard(message: Message) -> str:
    """Return the line that tells a message of the agent; nothing for those that only move the bar, and for echoes."""
    kind, _, rest = message.topic.partition("/")
    document = message.document
    if kind == "e":
        return f"← e/{rest:<22}{describe(Happening(EVENTS.get(rest, rest), document))}"
    if kind == "status":
        return f"← status/health           {document.get('status')}, {document.get('state', '')}"
    if kind == "twin":
        return f"← twin/{rest:<19}{', '.join(list(document)[:6])}"
    if kind == "m" and rest == "system":
        return (
            f"← m/system                {document['memory_available_mb']:.0f} MiB free, agent {document['agent_rss_mb']:.1f} MiB"
        )
    if kind == "cmd" and "rev" in document:
        detail = document.get("step", "") if document["status"] == Status.EXECUTING.value else document.get("reason", "")
        return f"← {message.topic:<24}{document['status']} {detail}".rstrip()
    return ""


def bar(message: Message) -> ProgressMessage | None:
    """Return where the bar goes for a command's state: over the whole run, not the step."""
    document = message.document
    if message.topic.startswith("cmd/") and "step" in document:
        return ProgressMessage(Step(document["step"]), document["progress"])
    return None


def table(dense: dict[str, Any], pruned: dict[str, Any], bench: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the final table from two results of ``specialize`` and one of ``bench``."""
    times = [bench[side]["latency_ms"] for side in ("dense", "pruned")]
    counts = [bench[side]["params"] for side in ("dense", "pruned")]
    sizes = [run["release"]["bytes"] for run in (dense, pruned)]
    memory = [run["training"]["memory_mb"] for run in (dense, pruned)]
    speed = [run["training"]["images_per_second"] for run in (dense, pruned)]
    right = [run["training"]["accuracy"] for run in (dense, pruned)]
    return [
        ("parameters", f"{counts[0]:,}", f"{counts[1]:,}", _less(counts)),
        ("bytes on disk", size(sizes[0]), size(sizes[1]), _less(sizes)),
        *(
            (f"latency {name}", f"{times[0][name]:.3f} ms", f"{times[1][name]:.3f} ms", _less([time[name] for time in times]))
            for name in ("p50", "p95")
        ),
        ("training memory", f"{memory[0]:.0f} MiB", f"{memory[1]:.0f} MiB", _less(memory)),
        ("training speed", f"{speed[0]:.0f} images/s", f"{speed[1]:.0f} images/s", f"{speed[1] / speed[0]:.1f}× faster"),
        ("held-out accuracy", f"{right[0]:.1%}", f"{right[1]:.1%}", f"{100 * (right[1] - right[0]):+.1f} points"),
    ]


def _less(pair: list[float]) -> str:
    return f"{pair[0] / pair[1]:.1f}× less" if pair[1] else ""
