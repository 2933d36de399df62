from __future__ import annotations

import math
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.config import PrometheusSection
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Progress
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.reporting import prometheus
from support.agents import CONFIG, WALL, AgentBench
from support.exposition import Family, parse
from support.values import device, release

FIGURES = {
    "cpu_percent": 25.0,
    "memory_available_mb": 100.0,
    "memory_used_mb": 28.5,
    "swap_used_mb": 0.0,
    "temperature_c": 51.5,
    "storage_free_mb": 2048.0,
    "load_1min": 0.75,
    "agent_rss_mb": 27.25,
}


@pytest.fixture
def bench() -> AgentBench:
    made = AgentBench(msgspec.structs.replace(CONFIG, prometheus=PrometheusSection("/metrics/agent.prom")))
    made.post(events.Started())
    return made


def exposed(bench: AgentBench, figures: dict[str, float] = FIGURES, dropped: int = 0) -> dict[str, Family]:
    """Let a sample be taken and return the metrics by name, without their common prefix."""
    bench.forget()
    bench.post(events.Sampled(figures, device()))
    (wanted,) = bench.done(do.Expose)
    text = prometheus.render(wanted.status, wanted.figures, dropped, wanted.wall).decode()
    found = parse(text)
    assert all(name.startswith("reconvene_agent_") for name in found)
    return {name.removeprefix("reconvene_agent_"): family for name, family in found.items()}


def test_the_board_in_base_units(bench: AgentBench) -> None:
    found = exposed(bench, dropped=7)
    assert found["board_memory_available_bytes"].value == 100 * 2**20
    assert found["board_memory_used_bytes"].value == 28.5 * 2**20
    assert found["board_storage_free_bytes"].value == 2**31
    assert found["resident_memory_bytes"].value == 27.25 * 2**20
    assert found["board_swap_used_bytes"].value == 0
    assert found["board_temperature_celsius"].value == 51.5
    assert found["board_cpu_busy_ratio"].value == 0.25
    assert found["board_load1"].value == 0.75
    assert (found["spool_dropped_total"].type, found["spool_dropped_total"].value) == ("counter", 7)


def test_the_agent(bench: AgentBench) -> None:
    bench.wait(30)
    found = exposed(bench)
    assert found["info"].values == {(("version", "0.1.0"), ("device_id", "board-1")): 1}
    assert found["start_time_seconds"].value == WALL
    assert found["last_sample_time_seconds"].value == WALL + 30
    assert (found["broker_connected"].value, found["problems"].value) == (0, 1)
    assert found["state"].values[(("state", "idle"),)] == 1
    assert sum(found["state"].values.values()) == 1
    assert len(found["state"].values) > 3
    bench.connect()
    found = exposed(bench)
    assert (found["broker_connected"].value, found["problems"].value) == (1, 0)


def test_a_job(bench: AgentBench) -> None:
    assert not {name for name in exposed(bench) if name.startswith("job")}
    bench.connect()
    bench.command("specialize/1")
    bench.say(Progress(Step.TRAIN, 0.5))
    found = exposed(bench)
    assert found["state"].values[(("state", "specialize"),)] == 1
    ((labels, progress),) = found["job_progress_ratio"].values.items()
    assert labels == (("operation", "specialize"), ("step", "train"))
    assert 0 < progress < 1
    assert found["job_attempt"].value == 1


def test_a_model(bench: AgentBench) -> None:
    bench.post(events.ReleaseRead(release()))
    found = exposed(bench)
    assert found["model_latency_p50_seconds"].value == 0.001
    assert found["model_latency_p95_seconds"].value == 0.002
    assert found["model_accuracy_ratio"].value == 0.9
    assert found["model_sparsity_ratio"].value == 0.9
    assert found["model_size_bytes"].value == 4096
    assert found["model_parameters"].value == 1000
    bench.post(events.ReleaseRead(release(accuracy=None)))
    assert "model_accuracy_ratio" not in exposed(bench), "a model that was not trained has none"


def test_what_a_board_cannot_tell_is_left_out(bench: AgentBench) -> None:
    assert not {name for name in exposed(bench, {}) if name.startswith("board") or name == "resident_memory_bytes"}


def test_a_daemon_that_has_nothing_of_it_switched_on_loads_nothing_of_it() -> None:
    modules = "{name for name in sys.modules if name.endswith(('.homeassistant', '.prometheus', '.discovered'))}"
    code = f"import sys; import reconvene_agent.daemon.service.loop; assert not {modules}, {modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_nothing_is_written_unless_it_is_wanted() -> None:
    bench = AgentBench()
    bench.post(events.Sampled(FIGURES, device()))
    assert not bench.done(do.Expose)


@given(st.text(max_size=20), st.floats())
def test_any_label_and_any_number_can_be_read_back(text: str, number: float) -> None:
    metric = prometheus.Metric("x", "Help.", (({"label": text}, number),))
    family = parse(prometheus._text(metric))["reconvene_agent_x"]
    ((((name, value),), found),) = family.values.items()
    assert (name, value) == ("label", text)
    assert found == number or (math.isnan(found) and math.isnan(number))
