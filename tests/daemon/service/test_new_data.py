from __future__ import annotations

from pathlib import Path

import msgspec

from reconvene_agent.core import census
from reconvene_agent.core.census import Census
from support.brokers import Mosquitto
from support.daemons import TOPICS, Daemon, Fleet
from support.values import release
from support.workers import WORK, honest

SETTINGS = {"bundle": "ours", "data": "ours", "new_data_share": 0.2}


def counted(data: Path) -> Census:
    found = census.take(data)
    assert found is not None
    return found


def add(data: Path, *numbers: int) -> None:
    for number in numbers:
        (data / f"{number}.png").write_bytes(b"x" * 100)


def test_new_data_start_one_run_that_the_fleet_hears_of(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> None:
    go.touch()
    python = honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")
    made = Daemon(tmp_path, broker.url, python, specialize=SETTINGS)
    data, current = made.state / "data/ours", made.state / "models/current"
    add(data, *range(10))
    current.mkdir(parents=True)
    deployed = msgspec.structs.replace(release(), data=counted(data))
    (current / "release.json").write_bytes(msgspec.json.encode(deployed))
    add(data, 11)
    with made as daemon:
        fleet.wait_birth()
        fleet.ping("too-few")
        assert daemon.stop() == 0
        assert own(fleet) == set()
        add(data, 12, 13)
        daemon.start()
        said = fleet.wait_topic(TOPICS.event("data_changed")).json
        label = said["command"]
        assert (said["files"], said["new_share"]) == (13, 0.3)
        assert own(fleet) == {label}
        ended = fleet.wait_end(label)
        assert (ended["status"], ended["requester"], ended["args"]) == ("successful", "agent", {})
        assert ended["cause"]["files"] == 13
        assert daemon.stop() == 0
        daemon.start()
        fleet.ping("again")
        assert daemon.stop() == 0
        assert own(fleet) == {label}


def own(fleet: Fleet) -> set[str]:
    """Return the labels of the commands that the agent has given itself."""
    return {"/".join(message.topic.split("/")[-2:]) for message in fleet.seen if "/cmd/specialize/auto-" in message.topic}
