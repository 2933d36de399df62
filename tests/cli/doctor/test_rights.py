"""Rights on the agent's topics, at real brokers with access lists; and what an agent that runs notices of it: nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import broker, rights
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding
from support.brokers import HOST, Handler, Mosquitto, counterfeit
from support.daemons import TOPICS, Daemon, Fleet
from support.doctoring import after_the_knock, case, codes, told
from support.waiting import until

S = TOPICS.service


@contextmanager
def guarded(folder: Path, *rules: str) -> Iterator[Mosquitto]:
    """Run a broker at which nobody may do more than the rules say."""
    rules_file = folder / "acl"
    rules_file.write_text("\n".join(rules) + "\n")
    with Mosquitto(folder / "broker", f"allow_anonymous true\nacl_file {rules_file}\nmax_queued_messages 1000\n") as started:
        yield started


def look(folder: Path, port: int, protocol: str = "auto", device_id: str = "board-1", username: str = "") -> list[Finding]:
    section = {"url": f"mqtt://{HOST}:{port}", "protocol": protocol, "username": username}
    made: Case = case(folder, agent={"device_id": device_id}, broker=section)
    found = list(broker.check(made))
    assert found[0].code == broker.GOOD.code
    return found[1:]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_all_rights_on_our_own_topics_suffice(tmp_path: Path, protocol: str) -> None:
    with guarded(tmp_path, f"topic readwrite {S}/#") as mosquitto:
        found = look(tmp_path, mosquitto.port, protocol)
    assert codes(found) == [rights.GOOD.code]
    assert told(found, rights.GOOD).found == f"the broker lets us publish below {S}, and lets us hear our commands"


def test_who_may_do_nothing_is_told_of_every_kind_of_topic(tmp_path: Path) -> None:
    with guarded(tmp_path, "topic readwrite te/device/board-2/service/reconvene-agent/#") as mosquitto:
        found = look(tmp_path, mosquitto.port)
    topics = "cmd/ping/…, twin/…, m/…, e/…, a/…"
    assert [each.found for each in found] == [f"the broker does not let us publish below {S} to {topics}: Not authorized"]
    assert told(found, rights.NO_PUBLISHING).advice.endswith(f"below 'user board-1', the line 'topic readwrite {S}/#'")


def test_a_list_by_users_of_whom_none_is_called_like_the_board(tmp_path: Path) -> None:
    """With the access list that is shipped."""
    shipped = Path(__file__).parents[3] / "docs/mosquitto/acl"
    with guarded(tmp_path, shipped.read_text()) as mosquitto:
        found = look(tmp_path, mosquitto.port, username="board-2")
        assert codes(look(tmp_path, mosquitto.port, username="board-1")) == [rights.GOOD.code]
    assert told(found, rights.OTHER_USER).found.startswith("the broker knows us as board-2, but the device id is board-1: ")
    assert codes(found) == [rights.NO_PUBLISHING.code, rights.OTHER_USER.code]


def test_a_list_that_leaves_something_out(tmp_path: Path) -> None:
    with guarded(
        tmp_path, f"topic readwrite {S}/cmd/#", f"topic write {S}/m/+", f"topic write {S}/a/+", f"topic write {S}/e/+"
    ) as mosquitto:
        found = look(tmp_path, mosquitto.port)
    assert told(found, rights.NO_PUBLISHING).found == f"the broker does not let us publish below {S} to twin/…: Not authorized"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_commands_that_would_not_be_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.setattr(rights, "RETURN_S", 0.5)
    with guarded(
        tmp_path, f"topic write {S}/cmd/#", *(f"topic readwrite {S}/{kind}/#" for kind in ["twin", "m", "e", "a"])
    ) as mosquitto:
        found = look(tmp_path, mosquitto.port, protocol)
    assert codes(found) == [rights.NO_COMMANDS.code]
    assert told(found, rights.NO_COMMANDS).found.startswith(f"what is published to {S}/cmd/ping/… does not come back")


def test_mqtt_3_1_1_does_not_tell_who_may_not_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "RETURN_S", 0.5)
    with guarded(tmp_path, f"topic readwrite {S}/cmd/#", f"topic readwrite {S}/m/#") as mosquitto:
        found = look(tmp_path, mosquitto.port, "3.1.1")
    assert codes(found) == [rights.UNCERTAIN.code]
    assert told(found, rights.UNCERTAIN).found.startswith(f"whether we may publish below {S} to twin/…, e/…, a/… cannot be told")


def scripted(suback: bytes, hang_up_on: bytes = b" ") -> Handler:
    """Return a broker that speaks MQTT 3.1.1, answers subscriptions so, and hangs up on publications to some topics."""

    def talk(client: socket.socket) -> None:
        rest = b""
        while piece := client.recv(65536):
            rest += piece
            while len(rest) >= 2 and len(rest) >= 2 + rest[1]:
                kind, body, rest = rest[0] >> 4, rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
                if kind == 1:
                    client.sendall(b"\x20\x02\x00\x00")
                elif kind == 8:
                    client.sendall(b"\x90\x03" + body[:2] + suback)
                elif kind == 3:
                    if hang_up_on in body:
                        return
                    size = int.from_bytes(body[:2], "big")
                    client.sendall(b"\x40\x02" + body[2 + size : 4 + size])

    return after_the_knock(talk)


def test_subscriptions_that_are_refused(tmp_path: Path) -> None:
    # Short names, since the script knows short packets only.
    with counterfeit(scripted(b"\x80")) as port:
        found = look(tmp_path, port, "3.1.1", device_id="b")
    refused = [each.found for each in found if each.code == rights.NO_SUBSCRIPTION.code]
    s = "te/device/b/service/reconvene-agent"
    assert [line.rpartition(":")[0] for line in refused] == [
        f"the broker does not let us subscribe to {s}/{topic}" for topic in ("cmd/+/+", "status/health")
    ]
    told(found[:1], rights.NO_SUBSCRIPTION)
    assert rights.NO_COMMANDS.code not in codes(found), "what follows from that is not said as well"


def test_a_broker_that_hangs_up_in_the_middle(tmp_path: Path) -> None:
    def hang_up(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"\x20\x02\x00\x00")
        client.recv(65536)

    with counterfeit(after_the_knock(hang_up)) as port:
        found = look(tmp_path, port, "3.1.1")
    assert codes(found) == [rights.CUT_OFF.code]
    assert told(found, rights.CUT_OFF).found.startswith(f"the broker left us subscribing to {S}/cmd/+/+: ")


def test_a_broker_that_hangs_up_on_who_may_not_publish(tmp_path: Path) -> None:
    """As AWS IoT Core does."""
    with counterfeit(scripted(b"\x01", hang_up_on=b"/twin/")) as port:
        found = look(tmp_path, port, "3.1.1", device_id="b")
    assert codes(found) == [rights.CUT_OFF.code]
    assert "the broker left us publishing to te/device/b/service/reconvene-agent/twin/doctor-" in found[0].found


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_an_agent_that_runs_is_not_disturbed(tmp_path: Path, broker: Mosquitto, protocol: str) -> None:
    with Fleet(broker.port) as fleet, Daemon(tmp_path / "daemon", broker.url) as daemon:
        until(lambda: daemon.status()["broker"]["connected"])
        fleet.ping(f"before-{protocol}")
        seen = len(fleet.seen)
        found = look(tmp_path, broker.port, protocol)
        fleet.ping(f"after-{protocol}")
        said = [message for message in fleet.seen[seen:] if "ping/after" not in message.topic and "/m/" not in message.topic]
        ours = [message for message in fleet.seen[seen:] if "/doctor-" in message.topic]
        assert codes(found) == [rights.GOOD.code]
        assert daemon.status()["problems"] == []
        assert "connection" not in daemon.log
    assert all(message.payload == b"" and not message.retain for message in ours)
    assert len(ours) == 5, "each of its own, and no answer to any"
    assert [message for message in said if message not in ours] == [], "nothing else has happened"
