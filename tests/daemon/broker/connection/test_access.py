from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.errors import AgentError
from reconvene_agent.daemon.broker.link import Link, link_from
from support import brokers
from support.brokers import (
    HOST,
    Mosquitto,
)
from support.certificates import authority, certificate
from support.ears import Connect

# paho leaves the socket of a failed handshake to the garbage collector.
leaky = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with brokers.secured(tmp_path_factory.mktemp("secured")) as started:
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
