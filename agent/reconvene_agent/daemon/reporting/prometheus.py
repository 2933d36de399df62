"""The agent's figures in Prometheus' text format, for node_exporter's textfile collector (docs/integrations.md). Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from reconvene_agent.core.messages import OPERATIONS

PREFIX = "reconvene_agent_"
STATES = ("idle", "paused", "stopping", *(name for name, operation in OPERATIONS.items() if operation.is_job))
_MIB = 2.0**20


class Metric(Struct, frozen=True):
    """One metric with its samples: labels and value of each. ``None`` for a value that is not known."""

    name: str
    help: str
    samples: tuple[tuple[dict[str, str], float | None], ...]
    type: Literal["gauge", "counter"] = "gauge"


def render(status: dict[str, Any], figures: dict[str, Any], dropped: int, wall: float) -> bytes:
    """Return the exposition.

    Args:
        status: the status document.
        figures: the board's figures by name, as they are measured.
        dropped: records that the spool had to drop since the agent started.
        wall: when the figures were measured, in seconds since the epoch.
    """
    metrics = (*_of_agent(status, dropped, wall), *_of_board(figures), *_of_job(status), *_of_model(status))
    return "".join(_text(metric) for metric in metrics).encode()


def _of_agent(status: dict[str, Any], dropped: int, wall: float) -> Iterator[Metric]:
    yield _labelled("info", "Version and name of the agent.", {"version": status["version"], "device_id": status["device_id"]})
    states = STATES if status["state"] in STATES else (*STATES, status["state"])
    samples = tuple(({"state": state}, float(state == status["state"])) for state in states)
    yield Metric("state", "1 for what the agent is doing, 0 for all else.", samples)
    yield _single("start_time_seconds", "When the agent started, in seconds since the epoch.", wall - status["uptime_s"])
    yield _single("last_sample_time_seconds", "When these figures were measured, in seconds since the epoch.", wall)
    broker = status["broker"]
    if broker["url"]:
        yield _single("broker_connected", "Whether there is a connection to the broker.", broker["connected"])
    yield _single("problems", "How many things are wrong, as `reconvene-agent status` lists them.", len(status["problems"]))
    help_text = "Measurements and events that had to be dropped before the broker had them."
    yield Metric("spool_dropped_total", help_text, (({}, float(dropped)),), "counter")


def _of_board(figures: dict[str, Any]) -> Iterator[Metric]:
    def figure(name: str, factor: float) -> float | None:
        return factor * figures[name] if name in figures else None

    yield _single("resident_memory_bytes", "The agent's own resident memory.", figure("agent_rss_mb", _MIB))
    yield _single("board_memory_available_bytes", "Memory that is available.", figure("memory_available_mb", _MIB))
    yield _single("board_memory_used_bytes", "Memory that is used.", figure("memory_used_mb", _MIB))
    yield _single("board_swap_used_bytes", "Swap that is used.", figure("swap_used_mb", _MIB))
    yield _single("board_storage_free_bytes", "Free bytes where the agent's state lies.", figure("storage_free_mb", _MIB))
    yield _single("board_temperature_celsius", "The hottest thermal zone.", figure("temperature_c", 1.0))
    yield _single("board_cpu_busy_ratio", "Share of the processors' time that was used.", figure("cpu_percent", 0.01))
    yield _single("board_load1", "Processes that wanted to run, averaged over a minute.", figure("load_1min", 1.0))


def _of_job(status: dict[str, Any]) -> Iterator[Metric]:
    job = status["job"]
    if job is not None:
        labels = {"operation": job["op"], "step": job["step"] or ""}
        yield _labelled("job_progress_ratio", "How far the running or paused job is.", labels, job["progress"])
        yield _single("job_attempt", "How often the job was started.", job["attempt"])


def _of_model(status: dict[str, Any]) -> Iterator[Metric]:
    model = status["release"]
    if model is None:
        return
    labels = {name: str(model[name]) for name in ("version", "architecture", "precision")}
    yield _labelled("model_info", "The deployed model.", labels)
    yield _single("model_accuracy_ratio", "Accuracy on held-out local data.", model["accuracy"])
    yield _single("model_sparsity_ratio", "Share of the weights that were dropped.", model["sparsity"])
    yield _single("model_size_bytes", "Bytes of the deployed file.", model["bytes"])
    yield _single("model_parameters", "Parameters of the model.", model["params"])
    for name in ("p50", "p95"):
        help_text = f"Latency of one inference at batch 1, {name}, when the model was deployed."
        yield _single(f"model_latency_{name}_seconds", help_text, model["latency_ms"][name] / 1000)


def _single(name: str, text: str, value: float | None) -> Metric:
    return Metric(name, text, (({}, value),))


def _labelled(name: str, text: str, labels: dict[str, str], value: float = 1.0) -> Metric:
    return Metric(name, text, ((labels, value),))


def _text(metric: Metric) -> str:
    samples = [(labels, value) for labels, value in metric.samples if value is not None]
    if not samples:
        return ""
    name = PREFIX + metric.name
    lines = [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.type}"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    value = float(value)
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
