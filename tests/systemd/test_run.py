"""Whole runs under the sandbox, with a real broker: one that nothing disturbs, and one during which the power fails."""

from __future__ import annotations

import os

import psutil
import pytest

from reconvene_agent.worker.priority import NICENESS
from support.brokers import Mosquitto
from support.daemons import TOPICS, Fleet
from support.guests import STATE, UNIT, Guest

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(400)]

ARGS = {"sparsity": 0.9, "training": {"epochs": 6, "batch": 32, "augment": "none"}}


def own_niceness(guest: Guest) -> int:
    return psutil.Process(guest.leader).nice()


def test_a_model_is_made_though_the_power_fails_in_the_middle(service: Guest, broker: Mosquitto) -> None:
    with Fleet(broker.port) as fleet:
        fleet.wait_birth()
        fleet.order("specialize/1", ARGS)
        fleet.wait_topic(TOPICS.event("epoch"), 90)
        (worker,) = service.workers()
        niceness = {os.getpriority(os.PRIO_PROCESS, thread.id) - own_niceness(service) for thread in worker.threads()}
        assert niceness == {0, NICENESS}, "training steps back, and measuring does not"
        service.cut_power()
        seen = len(fleet.seen)
        service.boot()
        end = fleet.wait_status("specialize/1", "successful", "failed", seconds=120, after=seen)
        assert (end["status"], end["attempt"]) == ("successful", 2), end
        numbers = [message.json["epoch"] for message in fleet.on(TOPICS.event("epoch"))]
        assert sorted(set(numbers)) == list(range(1, 7))
        assert end["result"]["parity_max_abs_diff"] < 1e-3
    path = service.run("readlink", "-f", f"{STATE}/models/current")
    assert path == end["result"]["release"]["path"]
    assert service.run("test", "-s", f"{path}/model.onnx") == ""
    assert service.run("stat", "--format=%U:%G %a", f"{path}/model.onnx") == "reconvene-agent:reconvene-agent 640"
    assert service.unit("NRestarts") == "0"
    assert service.unit("ActiveState") == "active"
    assert "SIGSYS" not in service.journal()
    assert "Operation not permitted" not in service.run("journalctl", "-u", UNIT, "-o", "cat")
    divisible = service.run("sh", "-c", "test -e /sys/fs/cgroup/cgroup.controllers && echo yes", check=False)
    said = service.run("journalctl", "--boot", "-u", UNIT, "-o", "cat").count("workers have no memory limit of their own")
    assert said == (0 if divisible else 1), "a kernel that cannot limit them does the work all the same, and it is said once"
