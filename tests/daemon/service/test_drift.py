"""A real daemon that has its deployed model timed, by a worker that says what a file says."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.budget import Budget, Limit
from support.brokers import Mosquitto, wait_cleared, wait_retained
from support.daemons import TOPICS, Daemon, Fleet
from support.shelves import publish
from support.waiting import until
from support.workers import honest

TIMES = """
assert type(request).__name__ == "TimeRequest"
p95 = float(Path({told!r}).read_text())
return {{"version": {version!r}, "latency_ms": {{"p50": 1.0, "p95": p95, "runs": 30}}}}
"""


def test_a_model_that_has_become_slow_is_an_alarm_until_it_is_fast_again(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    told = tmp_path / "p95"
    told.write_text("4")
    settings = {"sustained_s": 0.2, "check_interval_s": 0.3}
    version = publish(tmp_path / "state/models", 1, budget=Budget(latency_ms=Limit(5.0, "profile")))
    worker = honest(tmp_path / "python", TIMES.format(told=str(told), version=version))
    made = Daemon(tmp_path, broker.url, worker, drift=settings)
    with made as daemon:
        fleet.wait_birth()
        fleet.wait(lambda message: message.topic == TOPICS.measurement("inference") and message.json["latency_ms_p95"] == 4.0)
        assert daemon.status()["problems"] == []
        told.write_text("9")
        until(lambda: daemon.status()["problems"] == ["the deployed model no longer fits its budget: p95 is 9 ms, over 5"])
        # The board knows it first; the broker hears of it a moment later.
        assert wait_retained(broker.port, TOPICS.alarm("over_budget")).json["severity"] == "major"
        told.write_text("4")
        until(lambda: daemon.status()["problems"] == [])
        wait_cleared(broker.port, TOPICS.alarm("over_budget"))
