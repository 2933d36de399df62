"""``fleet rollout``: a real broker, real agents, and many pretended ones; stopped, killed, cut off and gone on with."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.core.topics import Topics
from support.brokers import Bus, Mosquitto, retained
from support.commandline import SOON, Cli, FleetCli, Running
from support.daemons import Daemon
from support.disks import fill, tiny_disk
from support.pretenders import EXECUTING, SUCCESS, Pretenders, failure
from support.waiting import until


def test_a_rollout_over_real_agents(agents: list[Daemon], fleet: FleetCli, tmp_path: Path) -> None:
    ended = fleet("rollout", "ping", "--all", "--canary", 1, "--json")
    assert ended.code == 0
    document = ended.document
    assert (document["devices"], document["successful"], document["waves"], document["aborted"]) == (2, 2, 2, None)
    assert Path(document["state"]).is_file()
    assert "wave 1: 1 device now, 1 later (the canaries)" in ended.err


def test_canaries_that_fail_stop_the_rollout(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    def answers(device: str, _request: dict[str, Any]) -> list[dict[str, Any]]:
        return [failure("NO_DATA") if device == "p1" else SUCCESS]

    state = tmp_path / "state.json"
    words = ("--broker", own.url, *SOON, "--json")
    with Pretenders(own.port, 40, answers) as devices:
        begin = ("--canary", "10%", "--batch", "50%", "--state", state, *words)
        first = cli("fleet", "rollout", "specialize", *devices.names, *begin)
        assert devices.received.total() == 4, "the canaries and nobody else"
        again = cli("fleet", "rollout", "--resume", state, *words)
        assert devices.received.total() == 4
        second = cli("fleet", "rollout", "--resume", state, "--abort-over", "50%", *words)
        assert devices.received == dict.fromkeys(devices.names, 1)
    assert first.code == again.code == 12
    assert first.document["aborted"] == "1 of 4 devices failed, more than 10%"
    assert first.document["failures"][0] == {"device": "p1", "wave": 1, "code": "NO_DATA", "detail": "it is so"}
    assert "'reconvene-agent fleet rollout --resume " in first.complaint
    assert second.code == 0
    assert (second.document["successful"], second.document["failed"], second.document["waiting"]) == (39, 1, 0)


def test_the_controller_says_nothing_on_other_topics(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    with Pretenders(own.port, 3) as devices, Bus(own.port) as bus:
        cli("fleet", "rollout", "ping", *devices.names, "--state", tmp_path / "s", "--broker", own.url, *SOON)
        cli("fleet", "ls", "--broker", own.url, *SOON)
        cli("fleet", "send", "ping", "p1", "--wait", "--broker", own.url, *SOON)
        live = {message.topic for message in bus.seen if not message.retain}
        assert {topic.split("/")[5] for topic in live if topic.startswith("te/")} == {"cmd"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_rollout_that_is_stopped_goes_on_and_sends_nothing_twice(
    number: signal.Signals, own: Mosquitto, cli: Cli, tmp_path: Path
) -> None:
    state, slow = tmp_path / "state.json", True

    def answers(device: str, _request: dict[str, Any]) -> list[dict[str, Any]]:
        return [EXECUTING] if slow and device in ("p5", "p6") else [EXECUTING, SUCCESS]

    with Pretenders(own.port, 20, answers) as devices, Bus(own.port) as bus:
        words = ("--canary", 2, "--batch", 6, "--state", state, "--broker", own.url, *SOON)
        with Running("fleet", "rollout", "specialize", *devices.names, *words) as running:
            running.wait_line("wave 2")
            devices.wait_received(8)
            running.signal(number)
            ended = running.end()
        if number is not signal.SIGKILL:
            assert ended.code == 128 + number
            assert f"fleet rollout --resume {state}' goes on" in ended.complaint
        slow = False
        for device in ("p5", "p6"):  # they end while no controller is there
            begun = bus.wait(lambda message, device=device: f"/{device}/" in message.topic and b'"executing"' in message.payload)
            bus.send(begun.topic, {**begun.json, "rev": 9, **SUCCESS})
        second = cli("fleet", "rollout", "--resume", state, "--broker", own.url, *SOON, "--json")
        assert devices.received == dict.fromkeys(devices.names, 1)
    assert second.code == 0
    assert (second.document["successful"], second.document["waves"]) == (20, 4)


def test_a_rollout_outlives_its_broker(own: Mosquitto, tmp_path: Path) -> None:
    def answers(device: str, _request: dict[str, Any]) -> list[dict[str, Any]]:
        return [EXECUTING] if device == "p1" else [SUCCESS]

    with Pretenders(own.port, 6, answers) as devices, Bus(own.port) as bus:
        words = ("--canary", 2, "--batch", 4, "--state", tmp_path / "state.json", "--broker", own.url, *SOON, "--json")
        with Running("fleet", "rollout", "ping", *devices.names, *words) as running:
            running.wait_line("wave 1")
            begun = bus.wait(lambda message: "/p1/" in message.topic and b'"executing"' in message.payload)
            own.stop()
            running.wait_line("no broker: ")
            own.start()
            until(bus.connected)
            bus.send(begun.topic, {**begun.json, "rev": 9, **SUCCESS})
            ended = running.end()
        assert devices.received == dict.fromkeys(devices.names, 1)
    assert ended.code == 0
    assert ended.document["successful"] == 6


def test_nobody_is_commanded_whose_command_cannot_be_kept(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:

        def answers(_device: str, _request: dict[str, Any]) -> list[dict[str, Any]]:
            if len(devices.received) == 1:
                fill(disk)
            return [SUCCESS]

        words = ("--canary", 1, "--state", disk / "state.json", "--broker", own.url, *SOON, "--json")
        with Pretenders(own.port, 5, answers) as devices:
            full = cli("fleet", "rollout", "ping", *devices.names, *words)
            assert devices.received == {"p0": 1}
            (disk / "ballast").unlink()
            freed = cli("fleet", "rollout", "--resume", disk / "state.json", "--broker", own.url, *SOON, "--json")
            assert devices.received == dict.fromkeys(devices.names, 1)
    assert full.code == 7
    assert full.error("NO_DISK")
    assert (freed.code, freed.document["successful"]) == (0, 5)


def test_a_device_that_is_late_counts_as_failed_and_finds_nothing_later(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    with Pretenders(own.port, 2, lambda *_: [SUCCESS]) as devices:
        names = (*devices.names, "absent")
        words = ("--canary", 3, "--timeout", 1.5, "--abort-over", "50%", "--broker", own.url, *SOON, "--json")
        ended = cli("fleet", "rollout", "ping", *names, "--id", "late", "--state", tmp_path / "s", *words)
    assert ended.code == 0
    assert (ended.document["successful"], ended.document["silent"]) == (2, 1)
    assert ended.document["failures"] == [{"device": "absent", "wave": 1, "code": None, "detail": "no answer within 1.5 s"}]
    assert retained(own.port, Topics("te", "absent").command("ping", "late")) is None


def test_devices_that_are_down_are_left_out(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    with Pretenders(own.port, 3) as devices, Bus(own.port) as bus:
        bus.send(Topics("te", "p1").health, {"status": "down", "session": "s"})
        ended = cli("fleet", "rollout", "ping", "--all", "--state", tmp_path / "s", "--broker", own.url, *SOON, "--json")
        assert set(devices.received) == {"p0", "p2"}
    assert ended.document["devices"] == 2
    assert "down and left out: 1 device" in ended.err


def test_a_state_belongs_to_one_process(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with Running("fleet", "rollout", "ping", "absent", "--state", state, "--broker", own.url, *SOON) as running:
        running.wait_line("wave 1")
        ended = cli("fleet", "rollout", "--resume", state, "--broker", own.url, *SOON)
        assert ended.code == 9
        assert ended.complaint == f"another process drives the rollout of {state}"
    ended = cli("fleet", "rollout", "ping", "absent", "--state", state, "--broker", own.url, *SOON)
    assert ended.code == 2
    assert "is there already: go on with it by --resume" in ended.complaint


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b'{"format":2}', os.urandom(40)], ids=range(5))
def test_a_state_that_is_none(content: bytes, fleet: FleetCli, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(content)
    assert "no state of a rollout can be read" in fleet("rollout", "--resume", tmp_path / "s").complaint


def test_a_state_of_another_format(agents: list[Daemon], fleet: FleetCli, tmp_path: Path) -> None:
    fleet("rollout", "ping", "board-1", "--state", tmp_path / "s")
    document = msgspec.json.decode((tmp_path / "s").read_bytes())
    (tmp_path / "s").write_bytes(msgspec.json.encode({**document, "format": 99}))
    ended = fleet("rollout", "--resume", tmp_path / "s")
    assert (ended.code, "is a state of format 99" in ended.complaint) == (2, True)
