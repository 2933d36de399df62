from __future__ import annotations

import queue
import random
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.daemon import mqtt
from reconvene_agent.daemon.mqtt import Connection, Link, Will, link_from, tls_context
from support.brokers import (
    HOST,
    Bus,
    Mosquitto,
    amqtt,
    counterfeit,
    free_port,
    only_3_1_1,
    protocol_level,
    retained,
)
from support.certificates import authority, certificate
from support.waiting import until

TOPIC = "te/device/x/service/reconvene-agent"
WILL = Will(f"{TOPIC}/status/health", b'{"status":"down"}')
SUBSCRIPTIONS = (f"{TOPIC}/cmd/+/+", WILL.topic)


class Ear:
    """Hears of a connection."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def connected(self, protocol: str) -> None:
        self.heard.put(("connected", protocol))

    def disconnected(self, reason: str, retry_s: float) -> None:
        self.heard.put(("disconnected", reason, retry_s))

    def received(self, topic: str, payload: bytes | None, size: int) -> None:
        self.heard.put(("received", topic, payload, size))

    def acknowledged(self, handle: int) -> None:
        self.heard.put(("acknowledged", handle))

    def next(self, *kinds: str, seconds: float = 20.0) -> tuple[Any, ...]:
        """Return what is heard next of these kinds."""
        while (event := self.heard.get(timeout=seconds))[0] not in kinds:
            pass
        return event


Connect = Callable[..., tuple[Connection, Ear]]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Return a function that connects to a port, with retries that come soon."""
    monkeypatch.setattr(mqtt.backoff, "delay", lambda *_: 0.05)
    before = set(threading.enumerate())
    made: list[Connection] = []

    def begin(port: int, **settings: Any) -> tuple[Connection, Ear]:
        link = Link(**{"host": HOST, "port": port, "client_id": "x", "protocol": "auto", "keepalive_s": 30, **settings})
        ear = Ear()
        made.append(Connection(link, WILL, SUBSCRIPTIONS, ear))
        made[-1].start()
        return made[-1], ear

    yield begin
    for connection in made:
        connection.close(2)
    until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as started:
        yield started


@pytest.fixture
def bus(broker: Mosquitto) -> Iterator[Bus]:
    with Bus(broker.port) as connected:
        yield connected


# paho leaves the socket of a failed handshake to the garbage collector.
leaky = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


# --- an ordinary broker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "agreed"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_both_protocols_work_in_both_directions(
    connect: Connect, broker: Mosquitto, bus: Bus, protocol: str, agreed: str
) -> None:
    connection, ear = connect(broker.port, protocol=protocol, client_id=f"both-{protocol}")
    assert ear.next("connected") == ("connected", agreed)
    handle = connection.publish(f"{TOPIC}/e/x", b"hello", retain=False)
    assert ear.next("acknowledged") == ("acknowledged", handle)
    assert bus.wait_topic(f"{TOPIC}/e/x").payload == b"hello"
    bus.send(f"{TOPIC}/cmd/ping/{agreed}", b"{}", retain=False)
    assert ear.next("received") == ("received", f"{TOPIC}/cmd/ping/{agreed}", b"{}", 2)


def test_what_is_retained_arrives_after_connecting(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    bus.send(f"{TOPIC}/cmd/plan/9", b"retained")
    _, ear = connect(broker.port, client_id="retained")
    assert ear.next("received")[1:3] == (f"{TOPIC}/cmd/plan/9", b"retained")
    bus.send(f"{TOPIC}/cmd/plan/9", b"")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_was_sent_while_we_were_away_arrives_too(connect: Connect, broker: Mosquitto, bus: Bus, protocol: str) -> None:
    first, ear = connect(broker.port, protocol=protocol, client_id=f"away-{protocol}")
    ear.next("connected")
    first.close(2)
    bus.send(f"{TOPIC}/cmd/plan/8", b"missed you", retain=False)
    _, ear = connect(broker.port, protocol=protocol, client_id=f"away-{protocol}")
    assert ear.next("received")[1:3] == (f"{TOPIC}/cmd/plan/8", b"missed you")


def test_retained_publications_stay(connect: Connect, broker: Mosquitto) -> None:
    connection, ear = connect(broker.port, client_id="stay")
    ear.next("connected")
    connection.publish(f"{TOPIC}/twin/x", b"kept", retain=True)
    ear.next("acknowledged")
    message = retained(broker.port, f"{TOPIC}/twin/x")
    assert message is not None
    assert message.payload == b"kept"


@pytest.mark.parametrize("size", [MAX_PAYLOAD, MAX_PAYLOAD + 1, 900_000])
def test_a_message_over_the_limit_is_not_kept_and_its_size_is_told(
    connect: Connect, broker: Mosquitto, bus: Bus, size: int
) -> None:
    _, ear = connect(broker.port, client_id=f"size-{size}")
    ear.next("connected")
    bus.send(f"{TOPIC}/cmd/plan/7", b"x" * size, retain=False)
    _, _, payload, told = ear.next("received")
    assert told == size
    assert (payload is None) == (size > MAX_PAYLOAD)


def test_a_message_that_no_packet_may_hold_does_not_break_the_connection(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    _, ear = connect(broker.port, client_id="huge")
    ear.next("connected")
    bus.send(f"{TOPIC}/cmd/plan/6", b"x" * (mqtt.MAX_PACKET + 1), retain=False)
    bus.send(f"{TOPIC}/cmd/plan/5", b"after", retain=False)
    assert ear.next("received", "disconnected")[1:3] == (f"{TOPIC}/cmd/plan/5", b"after")


def test_the_last_publication_still_leaves_when_it_is_closed(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    connection, ear = connect(broker.port, client_id="last")
    ear.next("connected")
    for number in range(50):
        connection.publish(f"{TOPIC}/last", b"%d" % number, retain=False)
    connection.close(5)
    bus.wait(lambda message: message.topic == f"{TOPIC}/last" and message.payload == b"49")
    assert connection.publish(f"{TOPIC}/last", b"late", retain=False) is None


def test_an_orderly_end_leaves_no_last_will(connect: Connect, broker: Mosquitto, bus: Bus) -> None:
    seen = len(bus.on(WILL.topic))
    connection, ear = connect(broker.port, protocol="3.1.1", client_id="orderly")
    ear.next("connected")
    connection.close(2)
    bus.send("marker", b"", retain=False)
    bus.wait_topic("marker")
    assert len(bus.on(WILL.topic)) == seen


_LONELY = """
import sys, threading
from reconvene_agent.daemon import mqtt
mqtt.WILL_DELAY_S = 1
class Ear:
    def connected(self, protocol): print("connected", flush=True)
    def __getattr__(self, name): return lambda *_: None
link = mqtt.Link("127.0.0.1", int(sys.argv[1]), "lonely-" + sys.argv[2], sys.argv[2], 30)
mqtt.Connection(link, mqtt.Will("lonely/" + sys.argv[2], b"down"), ("x",), Ear()).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_last_will_is_published_when_the_process_is_killed(broker: Mosquitto, bus: Bus, protocol: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _LONELY, str(broker.port), protocol], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        process.kill()
    assert bus.wait_topic(f"lonely/{protocol}").payload == b"down"
    message = retained(broker.port, f"lonely/{protocol}")
    assert message is not None


# --- brokers that come and go ------------------------------------------------------------------------------------------------


def test_a_broker_that_appears_later_is_found(connect: Connect, tmp_path: Path) -> None:
    late = Mosquitto(tmp_path / "late")
    connection, ear = connect(late.port)
    _, reason, retry_s = ear.next("disconnected")
    assert reason == f"{HOST}:{late.port} cannot be reached: Connection refused"
    assert retry_s == 0.05
    assert connection.publish("x", b"", retain=False) is None
    with late:
        assert ear.next("connected") == ("connected", "5")


def test_a_broker_that_restarts_is_found_again_and_keeps_what_is_retained(connect: Connect, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "restarting") as broker:
        connection, ear = connect(broker.port)
        ear.next("connected")
        connection.publish("kept", b"1", retain=True)
        first = ear.next("acknowledged")[1]
        broker.stop()
        assert ear.next("disconnected")[1].startswith("the connection was lost")
        assert connection.publish("lost", b"", retain=True) is None
        broker.start()
        assert ear.next("connected") == ("connected", "5")
        second = connection.publish("kept", b"2", retain=True)
        assert ear.next("acknowledged")[1] == second
        assert second is not None
        assert second > first, "a new connection has handles of its own"


def test_a_name_that_does_not_exist(connect: Connect) -> None:
    _, ear = connect(1883, host="no-such-host.invalid")
    assert ear.next("disconnected")[1].startswith("no-such-host.invalid:1883 cannot be reached: ")


def test_closing_before_there_is_a_broker_is_quick(connect: Connect) -> None:
    connection, ear = connect(free_port())
    ear.next("disconnected")
    connection.close(2)


def test_closing_what_never_began(connect: Connect) -> None:
    link = Link(HOST, free_port(), "x", "auto", 30)
    Connection(link, None, (), Ear()).close(1)


# --- brokers that speak only 3.1.1 -------------------------------------------------------------------------------------------


def test_a_broker_that_hangs_up_on_mqtt_5_is_spoken_to_in_3_1_1(connect: Connect, broker: Mosquitto) -> None:
    with counterfeit(only_3_1_1(broker.port)) as port:
        connection, ear = connect(port, client_id="hangs-up")
        assert ear.next("connected", "disconnected") == ("connected", "3.1.1")
        connection.publish("x", b"", retain=False)
        ear.next("acknowledged")


def test_a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1(connect: Connect) -> None:
    levels: list[int] = []

    def refuse(client: socket.socket) -> None:
        levels.append(protocol_level(client.recv(65536)))
        client.sendall(b"\x20\x02\x00\x01")  # a CONNACK of 3.1.1: unacceptable protocol version
        client.recv(100)

    with counterfeit(refuse) as port:
        _, ear = connect(port, client_id="refuses")
        ear.next("disconnected")
    assert levels[:2] == [5, 4]


def test_a_broker_that_hangs_on_mqtt_5_is_spoken_to_in_3_1_1(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "ANSWER_TIMEOUT_S", 0.5)
    with amqtt() as port:
        connection, ear = connect(port)
        assert ear.next("connected", "disconnected") == ("connected", "3.1.1")
        connection.publish("x", b"", retain=False)
        ear.next("acknowledged")


def test_a_version_that_is_asked_for_is_not_changed(connect: Connect, broker: Mosquitto) -> None:
    with counterfeit(only_3_1_1(broker.port)) as port:
        _, ear = connect(port, protocol="5", client_id="only-5")
        for _ in range(3):
            assert ear.next("connected", "disconnected")[0] == "disconnected"


# --- what is no broker at all ------------------------------------------------------------------------------------------------


def test_somebody_else_on_the_port(connect: Connect) -> None:
    def http(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with counterfeit(http) as port:
        _, ear = connect(port)
        assert ear.next("disconnected")[1] == f"{HOST}:{port} does not answer as an MQTT broker"


CONNACK = b"\x20\x03\x00\x00\x00"
SUBACK = b"\x90\x05\x00\x01\x00\x01\x01"
MALICE = {
    "a topic that is no text": b"\x30\x05\x00\x02\xff\xfe\x00",
    "a topic longer than its packet": b"\x30\x03\xff\xffx",
    "an endless length": b"\x30\xff\xff\xff\xff\xff\xff",
    "a packet of no kind": b"\x00\x00",
    "an acknowledgement of nothing": b"\x40\x02\x00\x63",
    "a short acknowledgement": b"\x40\x01\x00",
    "unknown properties": b"\x30\x06\x00\x01x\x02\x7f\x7f",
    "a goodbye": b"\xe0\x00",
    "a disordered goodbye": b"\xe0\x05\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("words", MALICE.values(), ids=MALICE.keys())
def test_malice_of_a_broker_ends_at_most_the_connection(connect: Connect, words: bytes) -> None:
    visits: queue.SimpleQueue[int] = queue.SimpleQueue()

    def speak(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(CONNACK)
        client.recv(65536)
        client.sendall(SUBACK + words)
        visits.put(1)
        client.settimeout(0.3)
        client.recv(65536)

    with counterfeit(speak) as port:
        _, ear = connect(port, protocol="5")
        for _ in range(3):
            visits.get(timeout=10)
        assert ear.next("connected") == ("connected", "5")
        assert ear.next("disconnected")


def test_noise_of_a_broker_ends_at_most_the_connection(connect: Connect) -> None:
    noise, rounds = random.Random(7), 30
    visits: queue.SimpleQueue[int] = queue.SimpleQueue()

    def speak(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(CONNACK)
        client.recv(65536)
        client.sendall(SUBACK + noise.randbytes(noise.randrange(1, 60)))
        visits.put(1)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(1)
        client.recv(65536)

    with counterfeit(speak) as port:
        connect(port, protocol="5")
        for _ in range(rounds):
            visits.get(timeout=10)


def test_a_subscription_that_is_refused_is_told(connect: Connect, tmp_path: Path) -> None:
    def speak(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(CONNACK)
        client.recv(65536)
        client.sendall(b"\x90\x05\x00\x01\x00\x87\x01")
        client.recv(100)

    with counterfeit(speak) as port:
        _, ear = connect(port, protocol="5")
        reason = ear.next("connected", "disconnected")[1]
        assert reason == f"the broker does not let us subscribe to {SUBSCRIPTIONS[0]}"


# --- who is who --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return a broker that wants a user and a password: ``me`` and ``sesame``."""
    folder = tmp_path_factory.mktemp("secured")
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "me", "sesame"], check=True, capture_output=True)
    with Mosquitto(folder, f"allow_anonymous false\npassword_file {passwords}\n") as started:
        yield started


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_user_and_password_come_from_a_file(connect: Connect, secured: Mosquitto, tmp_path: Path, protocol: Any) -> None:
    file = tmp_path / "password"
    file.write_text("sesame\n# a remark\n")
    section = BrokerSection(url=secured.url, username="me", password_file=str(file), protocol=protocol)
    link = link_from(section, "me")
    _, ear = connect(link.port, username=link.username, password=link.password, protocol=link.protocol)
    assert ear.next("connected", "disconnected")[0] == "connected"


@pytest.mark.parametrize(("user", "password"), [("me", "open"), ("you", "sesame"), ("", "")])
def test_a_wrong_user_or_password_is_told(connect: Connect, secured: Mosquitto, user: str, password: str) -> None:
    _, ear = connect(secured.port, username=user, password=password)
    _, reason, _ = ear.next("connected", "disconnected")
    assert reason.startswith("the broker refused the connection: ")
    assert password not in reason or not password


def test_a_password_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    for content in (None, b"", b"\xff\n"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(AgentError, match=f"no password can be read from {file}"):
            link_from(BrokerSection(url="mqtt://h", username="me", password_file=str(file)), "x")


def test_a_link_holds_what_the_configuration_says() -> None:
    link = link_from(BrokerSection(url="mqtts://h:1", protocol="5", ca_file="/ca", keepalive_s=10, username="me"), "x")
    assert link == Link("h", 1, "x", "5", 10, "me", "", True, "/ca")


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the broker's certificate authority and another one."""
    folder = tmp_path_factory.mktemp("certificates")
    return authority(folder / "ours", "ours"), authority(folder / "theirs", "theirs")


def tls_settings(ca: Path, alternative: str) -> str:
    made, key = certificate(ca, alternative.replace(":", "-"), alternative)
    return f"allow_anonymous true\ncafile {ca}\ncertfile {made}\nkeyfile {key}\n"


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory: pytest.TempPathFactory, authorities: tuple[Path, Path]) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("tls"), tls_settings(authorities[0], "IP:127.0.0.1")) as started:
        yield started


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_tls_with_a_private_authority(
    connect: Connect, tls_broker: Mosquitto, authorities: tuple[Path, Path], protocol: str
) -> None:
    connection, ear = connect(
        tls_broker.port, tls=True, ca_file=str(authorities[0]), protocol=protocol, client_id=f"tls-{protocol}"
    )
    assert ear.next("connected", "disconnected")[0] == "connected"
    handles = {connection.publish("x", b"y" * 10_000, retain=False) for _ in range(50)}
    assert {ear.next("acknowledged")[1] for _ in range(50)} == handles


@leaky
def test_another_authority_is_not_trusted(connect: Connect, tls_broker: Mosquitto, authorities: tuple[Path, Path]) -> None:
    _, ear = connect(tls_broker.port, tls=True, ca_file=str(authorities[1]))
    reason = ear.next("connected", "disconnected")[1]
    assert reason.startswith(f"TLS with {HOST}:{tls_broker.port} failed: ")
    assert "certificate" in reason.partition("failed: ")[2]
    assert "CERTIFICATE_VERIFY_FAILED" not in reason, "it says what is wrong with it"


@leaky
def test_the_systems_authorities_do_not_know_it_either(connect: Connect, tls_broker: Mosquitto) -> None:
    _, ear = connect(tls_broker.port, tls=True)
    assert "failed" in ear.next("connected", "disconnected")[1]


@leaky
def test_a_certificate_for_another_name_is_not_trusted(
    connect: Connect, tls_broker: Mosquitto, authorities: tuple[Path, Path]
) -> None:
    _, ear = connect(tls_broker.port, host="localhost", tls=True, ca_file=str(authorities[0]))
    reason = ear.next("connected", "disconnected")[1]
    assert "certificate is not valid for 'localhost'" in reason


@leaky
def test_a_broker_without_tls_is_not_spoken_to(connect: Connect, broker: Mosquitto, authorities: tuple[Path, Path]) -> None:
    _, ear = connect(broker.port, tls=True, ca_file=str(authorities[0]))
    assert ear.next("connected", "disconnected")[0] == "disconnected"


@leaky
def test_a_client_certificate_is_shown(connect: Connect, tmp_path: Path, authorities: tuple[Path, Path]) -> None:
    settings = tls_settings(authorities[0], "IP:127.0.0.1") + "require_certificate true\n"
    made, key = certificate(authorities[0], "board", "DNS:board")
    with Mosquitto(tmp_path / "mutual", settings) as broker:
        _, ear = connect(broker.port, tls=True, ca_file=str(authorities[0]), cert_file=str(made), key_file=str(key))
        assert ear.next("connected", "disconnected")[0] == "connected"
        _, ear = connect(broker.port, tls=True, ca_file=str(authorities[0]), client_id="nobody")
        assert ear.next("connected", "disconnected")[0] == "disconnected"


def test_tls_is_version_1_2_or_newer_and_checks_names() -> None:
    context = tls_context(Link("h", 1, "x", "5", 30, tls=True))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_tls_files_that_cannot_be_used_are_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file.pem"
    for content in (None, b"", b"rubbish"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(AgentError, match=r"the TLS files of the broker cannot be used: ."):
            tls_context(Link("h", 1, "x", "5", 30, tls=True, **{name: str(file)}))
