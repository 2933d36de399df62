"""The real daemon, its broker killed and its line cut: what it has spooled arrives, whole and in order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.core.config import TelemetrySection
from reconvene_agent.daemon.broker.outbox import WINDOW
from reconvene_agent.daemon.reporting import identity, reports
from reconvene_agent.daemon.storage.spool import Spool
from support.brokers import HOST, Mosquitto, free_port, wait_retained
from support.daemons import IMPATIENT, TOPICS, Daemon, Fleet, topic_of
from support.harvest import Harvest
from support.proxy import Proxy
from support.waiting import until
from support.workers import honest

EPOCHS = 10_000
WORK = """
for step in Step:
    channel.progress(step, 0.0, step.value)
    if step is Step.TRAIN:
        wait_for(GO, channel)
        for epoch in range(EPOCHS):
            channel.event("epoch", {"epoch": epoch, "loss": 0.5, "accuracy": 0.75})
return {"data": "ours"}
"""


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a broker that keeps nothing on disk."""
    with Mosquitto(tmp_path / "mosquitto", "allow_anonymous true\npersistence false\n") as started:
        yield started


def test_what_a_run_measures_during_an_outage_arrives_after_it(tmp_path: Path, forgetful: Mosquitto, go: Path) -> None:
    worker = honest(tmp_path / "python", f"GO, EPOCHS = {str(go)!r}, {EPOCHS}\n{WORK}")
    with Proxy(forgetful.port) as proxy:
        daemon = Daemon(tmp_path, f"mqtt://{HOST}:{proxy.port}", worker)
        daemon.program = ("-c", IMPATIENT)
        with daemon:
            with Fleet(forgetful.port) as fleet:
                fleet.wait_birth()
                fleet.order("specialize/1")
                daemon.wait_step("train")
            forgetful.kill()
            proxy.target = free_port()
            until(lambda: not daemon.status()["broker"]["connected"])
            go.touch()
            daemon.wait_state("idle", 60)
            forgetful.start()
            with Harvest(forgetful.port, TOPICS.measurement("training"), TOPICS.event("epoch")) as harvest:
                proxy.target = forgetful.port
                harvest.wait(EPOCHS // 2)
                proxy.cut()
                harvest.wait_for_all(2 * EPOCHS)
                harvest.check()
                assert len(harvest.records) <= 2 * EPOCHS + WINDOW
                for topic in (TOPICS.measurement("training"), TOPICS.event("epoch")):
                    found = [record.json for record in harvest.firsts(topic)]
                    assert [document["epoch"] for document in found] == list(range(EPOCHS))
                    assert "dropped_total" not in found[-1]
            known = (
                TOPICS.service,
                TOPICS.health,
                TOPICS.capability("plan"),
                TOPICS.twin("last_result"),
                topic_of("specialize/1"),
            )
            for topic in known:
                wait_retained(forgetful.port, topic)
            with Fleet(forgetful.port) as fleet:
                assert fleet.ping("after")["state"] == "idle"


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_a_daemon_killed_while_it_drains_loses_nothing(kills: int, tmp_path: Path, broker: Mosquitto) -> None:
    draw = random.Random(0)
    count, room = 1_000 * kills, 64 << 20
    daemon = Daemon(tmp_path, broker.url, telemetry={"spool_bytes": room})
    daemon.state.mkdir(exist_ok=True)
    spool = Spool(daemon.state / "spool.db", identity.boot_id(), TelemetrySection(spool_bytes=room))
    for begin in range(0, count, 1000):
        spool.append([reports.measurement(TOPICS, "training", {"n": begin + n}, 0.0) for n in range(1000)])
    spool.close()
    with Harvest(broker.port, TOPICS.measurement("training")) as harvest:
        for _ in range(kills):
            before = len(harvest.records)
            with daemon:
                harvest.wait(before + draw.randrange(1, 800))
                daemon.kill()
        with daemon:
            harvest.wait_for_all(count)
        harvest.check()
    assert [record.json["n"] for record in harvest.firsts()] == list(range(count))
