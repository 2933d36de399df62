"""Real brokers, and a few that misbehave; the way there below MQTT is in test_reach.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import broker, reach
from reconvene_agent.cli.doctor.case import Case
from support import brokers
from support.brokers import HOST, Mosquitto, amqtt, counterfeit, only_3_1_1
from support.doctoring import after_the_knock, case, codes, told

ALL_WELL = [broker.GOOD.code, "broker.rights"]


def at(folder: Path, port: int, **more: str) -> Case:
    return case(folder, broker={"url": f"mqtt://{HOST}:{port}", **more})


def test_no_broker_at_all(tmp_path: Path) -> None:
    assert codes(broker.check(case(tmp_path))) == [broker.NONE.code]
    told(broker.check(case(tmp_path)), broker.NONE)


def test_a_broker_that_is_to_be_left_alone(tmp_path: Path) -> None:
    def never(client: socket.socket) -> None:
        pytest.fail("somebody came")

    with counterfeit(never) as port:
        made = at(tmp_path, port)
        made.offline = True
        told(broker.check(made), broker.OFFLINE)


def test_without_the_password_it_is_not_looked_at(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("sesame\n")
    made = at(tmp_path, 1, username="me", password_file=str(password))
    password.unlink()
    assert "no password can be read from" in told(broker.check(made), broker.UNREADABLE).found


@pytest.mark.parametrize(("protocol", "spoken"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_a_broker_that_lets_us_do_what_we_must(tmp_path: Path, broker: Mosquitto, protocol: str, spoken: str) -> None:
    from reconvene_agent.cli.doctor import broker as checked

    found = list(checked.check(at(tmp_path, broker.port, protocol=protocol)))
    words = f"the broker at {HOST}:{broker.port} lets us without a user's name in and speaks MQTT {spoken}"
    assert told(found, checked.GOOD).found == words
    assert codes(found) == ALL_WELL


def test_a_broker_that_hangs_up_on_mqtt_5(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as real, counterfeit(after_the_knock(only_3_1_1(real.port))) as port:
        found = list(broker.check(at(tmp_path, port)))
    assert told(found, broker.GOOD).found.endswith("speaks MQTT 3.1.1")


def test_a_broker_that_hangs_on_mqtt_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with amqtt() as port:
        monkeypatch.setattr(reach, "PATIENCE_S", 2.0)
        found = list(broker.check(at(tmp_path, port)))
    assert told(found, broker.GOOD).found.endswith("speaks MQTT 3.1.1")


@contextmanager
def refusing(code: int) -> Iterator[int]:
    """Answer every CONNECT with this code of MQTT 5."""

    def refuse(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(bytes([0x20, 3, 0, code, 0]))
        client.recv(1)

    with counterfeit(after_the_knock(refuse)) as port:
        yield port


def test_a_version_that_the_broker_does_not_speak(tmp_path: Path) -> None:
    with refusing(0x84) as port:
        found = told(broker.check(at(tmp_path, port, protocol="5")), broker.WRONG_VERSION)
    assert found.found == "the broker does not speak MQTT 5, which broker.protocol asks for"


def test_a_broker_that_has_other_reasons(tmp_path: Path) -> None:
    with refusing(0x89) as port:
        found = told(broker.check(at(tmp_path, port)), broker.REFUSED)
    assert found.found == "the broker refuses the connection of the client reconvene-agent-board-1-doctor: Server busy"


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\xff\xff\xff\xff\xff", None]
)
def test_what_is_no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> None:
    monkeypatch.setattr(reach, "PATIENCE_S", 0.4)

    def talk(client: socket.socket) -> None:
        client.recv(65536)
        if answer is None:
            while client.recv(65536):  # it swallows everything
                pass
        else:
            client.sendall(answer)

    with counterfeit(after_the_knock(talk)) as port:
        assert (
            f"{HOST}:{port} does not answer as an MQTT broker: " in told(broker.check(at(tmp_path, port)), broker.NO_MQTT).found
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with brokers.secured(tmp_path_factory.mktemp("secured")) as started:
        yield started


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_password_that_is_wrong(tmp_path: Path, secured: Mosquitto, protocol: str) -> None:
    password = tmp_path / "password"
    password.write_text("swordfish\n")
    made = at(tmp_path, secured.port, username="me", password_file=str(password), protocol=protocol)
    found = told(broker.check(made), broker.DENIED)
    assert found.found.startswith("the broker does not let the user me in: ")
    assert "swordfish" not in found.found + found.advice
    password.write_text("sesame\n")
    assert codes(broker.check(made)) == ALL_WELL


def test_a_user_who_is_not_named(tmp_path: Path, secured: Mosquitto) -> None:
    assert "does not let us without a user's name in" in told(broker.check(at(tmp_path, secured.port)), broker.DENIED).found


def test_a_broker_that_goes_by_the_clients_name(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", "allow_anonymous true\nclientid_prefixes board-\n") as picky:
        found = told(broker.check(at(tmp_path, picky.port)), broker.DENIED)
    assert found.advice.endswith("must allow reconvene-agent-board-1-doctor as well as reconvene-agent-board-1")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ("retain_available false\n", broker.NO_RETAIN),
        ("max_qos 0\n", broker.NO_QOS),
        ("max_packet_size 65536\n", broker.SMALL),
    ],
    ids=["retain", "qos", "size"],
)
def test_a_broker_that_cannot_do_enough(tmp_path: Path, settings: str, kind: broker.Kind) -> None:
    with Mosquitto(tmp_path / "broker", f"allow_anonymous true\n{settings}") as poor:
        told(broker.check(at(tmp_path, poor.port)), kind)
