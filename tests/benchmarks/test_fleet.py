"""The agents that the benchmark of a fleet simulates still speak the protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from reconvene_agent.core.topics import Topics
from support.brokers import Bus, Mosquitto

AGENTS = Path(__file__).parents[2] / "benchmarks/simulated_agents.py"
COUNT = 3


def test_simulated_agents_are_born_and_answer(broker: Mosquitto, tmp_path: Path) -> None:
    words = [sys.executable, str(AGENTS), str(broker.port), "0", str(COUNT), str(tmp_path)]
    with Bus(broker.port) as bus, subprocess.Popen(words) as process:
        try:
            for number in range(COUNT):
                topics = Topics("te", f"sim-{number:05d}")
                bus.wait(lambda message, topics=topics: message.topic == topics.health and b'"up"' in message.payload)
                bus.wait_topic(topics.measurement("system"))
                topic = topics.command("specialize", "1")
                bus.send(topic, {"status": "init", "args": {}})
                bus.wait(lambda message, topic=topic: message.topic == topic and b'"executing"' in message.payload)
        finally:
            process.kill()
