"""The Mosquitto of docs/mosquitto, and an amqtt: whole conversations with a real daemon, and who is kept out of what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from paho.mqtt import client as paho

from reconvene_agent.core.clock import wall_seconds
from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.link import Link
from support.brokers import HOST, Bus, amqtt
from support.certificates import authority, certificate
from support.daemons import TOPICS, Daemon, Fleet, topic_of
from support.ears import Connect, Ear
from support.shipped import Access, Shipped
from support.signatures import signed, trusting
from support.waiting import until

PROTOCOLS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}
BOARD_2 = TOPICS.service.replace("board-1", "board-2")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    with Shipped(tmp_path_factory.mktemp("shipped")) as started:
        yield started


def converse(fleet: Fleet, daemon: Daemon, name: str, protocol: str) -> None:
    """Hold a conversation: a ping, what is refused without a signature, what is done with one, once."""
    assert fleet.ping(name)["state"] == "idle"
    assert daemon.status()["broker"]["protocol"] == protocol
    fleet.order(f"pause/unsigned-{name}")
    assert fleet.wait_end(f"pause/unsigned-{name}")["error"]["code"] == "BAD_SIGNATURE"
    command = signed(f"pause/{name}", wall=time.time())
    for number in (1, 2):
        fleet.send(topic_of(f"pause/{name}"), command)
        fleet.wait(lambda _: len(fleet.states(f"pause/{name}")) >= number)  # noqa: B023
    first, again = fleet.states(f"pause/{name}")[:2]
    assert first == again
    assert first["status"] == "successful"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("access", get_args(Access))
def test_a_conversation_through_the_shipped_broker(shipped: Shipped, tmp_path: Path, access: Access, protocol: str) -> None:
    name = f"{access}-{protocol}"
    settings: dict[str, Any] = {
        "broker": shipped.broker(access, "board-1", protocol=protocol),
        "security": {"trusted_keys": str(trusting(tmp_path / "trusted"))},
    }
    with (
        Fleet(shipped.port_for(access), shipped.prepare(access, "fleet")) as fleet,
        Daemon(tmp_path, **settings) as daemon,
    ):
        converse(fleet, daemon, name, protocol)
        assert daemon.stop() == 0


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS and password"])
def test_a_conversation_through_amqtt(connect: Connect, tmp_path: Path, secured: bool) -> None:
    tls: dict[str, str] = {}
    broker: dict[str, Any] = {"protocol": "3.1.1"}
    passwords = None
    if secured:
        from pwdlib.hashers.argon2 import Argon2Hasher

        ca = authority(tmp_path, "ca")
        made, key = certificate(ca, "server", "IP:127.0.0.1")
        tls = {"certfile": str(made), "keyfile": str(key)}
        passwords, mine = tmp_path / "passwords", tmp_path / "password"
        passwords.write_text(f"board-1:{Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1).hash('sesame')}\n")
        mine.write_text("sesame\n")
        mine.chmod(0o600)
        broker |= {"ca_file": str(ca), "username": "board-1", "password_file": str(mine)}

    def let_in(client: paho.Client) -> None:
        if secured:
            client.tls_set(str(ca))
            client.username_pw_set("board-1", "sesame")

    with amqtt(passwords, **tls) as port:
        broker["url"] = f"{'mqtts' if secured else 'mqtt'}://{HOST}:{port}"
        settings = {"broker": broker, "security": {"trusted_keys": str(trusting(tmp_path / "trusted"))}}
        with Fleet(port, let_in, paho.MQTTv311) as fleet, Daemon(tmp_path, **settings) as daemon:
            converse(fleet, daemon, "x", "3.1.1")
        if secured:
            _, ear = connect(port, protocol="3.1.1", tls=True, ca_file=broker["ca_file"], username="board-1", password="open")
            assert ear.next("connected", "disconnected")[1].startswith("the broker refused the connection: ")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("access", get_args(Access))
def test_a_board_neither_hears_nor_speaks_for_another(shipped: Shipped, access: Access, protocol: str) -> None:
    """What is forbidden goes first, what is allowed after it over the same connections: so it has not just been late."""
    port, version, name = shipped.port_for(access), PROTOCOLS[protocol], f"{access}-{protocol}"
    own, foreign = (f"{service}/cmd/ping/{name}" for service in (BOARD_2, TOPICS.service))
    with (
        Fleet(port, shipped.prepare(access, "fleet")) as fleet,
        Bus(port, shipped.prepare(access, "board-2"), version) as board,
    ):
        fleet.send(foreign, b"1", retain=False)
        fleet.send(own, b"2", retain=False)
        board.wait_topic(own)
        assert all(topic.startswith(f"{BOARD_2}/") for topic in board.topics()), "though it has subscribed to everything"
        for topic in (TOPICS.health, foreign, "te/device/board-2/service/other/x", f"fleet/{name}", f"$SYS/{name}"):
            board.send(topic, b"forged", retain=False)
        board.send(f"{BOARD_2}/e/{name}", b"true", retain=False)
        fleet.wait_topic(f"{BOARD_2}/e/{name}")
        assert b"forged" not in [message.payload for message in fleet.seen]


@pytest.mark.parametrize(("user", "allowed"), [("fleet", True), ("viewer", False)])
def test_a_controller_commands_and_a_viewer_only_looks(shipped: Shipped, user: str, allowed: bool) -> None:
    with (
        Bus(shipped.port, shipped.prepare("certificate", user)) as person,
        Bus(shipped.port, shipped.prepare("certificate", "board-2")) as board,
    ):
        person.send(f"{BOARD_2}/twin/model", b"forged", retain=False)
        person.send(f"{BOARD_2}/cmd/ping/{user}", b"asked", retain=False)
        board.send(f"{BOARD_2}/e/{user}", b"after", retain=False)
        person.wait_topic(f"{BOARD_2}/e/{user}")
        board.wait_topic(f"{BOARD_2}/e/{user}")
        heard = [message.payload for message in board.seen]
        assert b"forged" not in heard
        assert (b"asked" in heard) is allowed


def refused(daemon: Daemon, words: str) -> None:
    """Wait until the status says why there is no broker."""

    def told() -> dict[str, Any] | None:
        status = daemon.status()
        return status if status["broker"]["reason"] not in ("", "not connected yet") else None

    status = until(told)
    assert status is not None
    assert words in status["broker"]["reason"]
    assert status["broker"]["connected"] is False
    assert f"no broker: {status['broker']['reason']}" in status["problems"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mistake", ["name", "authority", "password", "user", "no certificate", "expired"])
def test_why_a_broker_is_not_reached_stands_in_the_status(shipped: Shipped, tmp_path: Path, mistake: str, protocol: str) -> None:
    access: Access = "certificate" if mistake in ("no certificate", "expired") else "password"
    broker = shipped.broker(access, "board-1", protocol=protocol)
    reasons = {
        "name": "certificate is not valid for 'localhost'",
        "authority": "unable to get local issuer certificate",
        "password": "the broker refused the connection: ",
        "user": "the broker refused the connection: ",
        "no certificate": "the broker demands a client certificate: set broker.cert_file and broker.key_file",
        "expired": " failed: the broker says: certificate expired",
    }
    if mistake == "name":
        broker["url"] = broker["url"].replace(HOST, "localhost")
    elif mistake == "authority":
        broker["ca_file"] = str(authority(tmp_path, "theirs"))
    elif mistake == "password":
        wrong = tmp_path / "password"
        wrong.write_text("open\n")
        wrong.chmod(0o600)
        broker["password_file"] = str(wrong)
    elif mistake == "user":
        broker["username"] = "board-9"
    elif mistake == "no certificate":
        del broker["cert_file"], broker["key_file"]
    else:
        made, key = certificate(shipped.ca, "late", "DNS:late", days=0)
        broker |= {"cert_file": str(made), "key_file": str(key)}
    with Daemon(tmp_path, broker=broker) as daemon:
        refused(daemon, reasons[mistake])


@pytest.mark.parametrize("access", get_args(Access))
def test_a_board_under_another_name_is_told_and_keeps_what_it_had_to_say(
    shipped: Shipped, tmp_path: Path, access: Access
) -> None:
    with Daemon(tmp_path, broker=shipped.broker(access, "board-2", protocol="5")) as daemon:
        refused(
            daemon,
            "does not let us publish: the name it knows us by has no right to this topic",
        )
        assert ("is for 'board-2', and this is 'board-1'" in daemon.log) is (access == "certificate")
        assert daemon.stop() == 0
        stopped = time.time()
    with (
        Fleet(shipped.port_for(access), shipped.prepare(access, "fleet")) as fleet,
        Daemon(tmp_path, broker=shipped.broker(access, "board-1")),
    ):
        measurements = [fleet.wait(lambda message: message.topic == TOPICS.measurement("system")).json]
        assert wall_seconds(measurements[0]["time"]) < stopped, "the first one, which was refused before"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_takes_the_client_id_of_another_gets_none_of_its_messages(shipped: Shipped, protocol: str) -> None:
    """The session of a board that is away, with a command that waits for it, is taken over by a stolen board."""
    own, foreign = (f"{service}/cmd/ping/taken-{protocol}" for service in (BOARD_2, TOPICS.service))

    def come(user: str) -> tuple[Connection, Ear]:
        files = {"ca_file": shipped.ca, "cert_file": shipped.folder / f"{user}.pem", "key_file": shipped.folder / f"{user}.key"}
        texts = {name: str(file) for name, file in files.items()}
        link = Link(HOST, shipped.port, f"taken-{protocol}", protocol, 30, tls=True, **texts)
        ear = Ear()
        connection = Connection(link, None, (own, foreign), ear)
        connection.start()
        return connection, ear

    def heard(ear: Ear, last: object) -> list[object]:
        """Return all that is heard, payloads and words, until something is heard."""
        found: list[object] = []
        while last not in found:
            event = ear.next("connected", "received")
            found.append(event[2] if event[0] == "received" else event[0])
        return found

    first, ear = come("board-1")
    ear.next("connected")
    first.close(5)
    with Fleet(shipped.port, shipped.prepare("certificate", "fleet")) as fleet:
        fleet.send(foreign, b"secret", retain=False)
        thief, ear = come("board-2")
        before = heard(ear, "connected")
        fleet.send(own, b"its own", retain=False)
        assert before + heard(ear, b"its own") == ["connected", b"its own"]
        thief.close(5)
