"""The way to the broker below MQTT: names, ports, TLS, certificates of every kind."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import broker, reach
from reconvene_agent.cli.doctor.findings import Finding
from support.brokers import HOST, Mosquitto, counterfeit, free_port
from support.certificates import authority, dated
from support.doctoring import case, codes, told

LONG = (-1, 900)


def look(folder: Path, url: str, **more: Path) -> list[Finding]:
    return list(broker.check(case(folder, broker={"url": url, **{name: str(value) for name, value in more.items()}})))


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    found = look(tmp_path, "mqtt://broker.invalid")
    assert codes(found) == [reach.NO_NAME.code]
    assert told(found, reach.NO_NAME).found.startswith("the host broker.invalid of broker.url is not known: ")


def test_a_name_that_no_server_answers_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []
    monkeypatch.setattr(reach, "NAME_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.append(time.sleep(0.3)))
    assert told(look(tmp_path, "mqtt://far.example"), reach.NO_NAME).found.endswith("no name server has answered within 0.1 s")


def test_a_port_that_nobody_listens_at(tmp_path: Path) -> None:
    port = free_port()
    assert told(look(tmp_path, f"mqtt://{HOST}:{port}"), reach.NO_PORT).found == f"nobody listens at {HOST}:{port}"


def test_a_port_that_swallows_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that drops: the queue of who listens is full, so that the kernel answers nobody."""
    monkeypatch.setattr(reach, "PATIENCE_S", 0.3)
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((HOST, 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        time.sleep(0.05)
        found = look(tmp_path, f"mqtt://{HOST}:{listener.getsockname()[1]}")
    assert told(found, reach.NO_ANSWER).found.endswith("cannot be reached: no answer within 0.3 s")


Serve = Callable[..., "contextmanager[Mosquitto]"]


class Authorities:
    """The authority that signs brokers' certificates, and another one."""

    def __init__(self, folder: Path) -> None:
        self.ours = authority(folder / "ours", "Our Authority")
        self.theirs = authority(folder / "theirs", "Their Authority")

    @contextmanager
    def broker(
        self,
        folder: Path,
        name: str = "broker",
        days: tuple[float, float] = LONG,
        alternative: str = f"IP:{HOST}",
        more: str = "",
    ) -> Iterator[str]:
        """Run a broker with TLS; yield its url."""
        made, key = dated(self.ours, name, alternative, *days)
        settings = f"allow_anonymous true\ncafile {self.ours}\ncertfile {made}\nkeyfile {key}\n{more}"
        with Mosquitto(folder / "broker", settings) as started:
            yield f"mqtts://{HOST}:{started.port}"


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("authorities"))


def day(days: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86400))


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_tls_as_it_should_be(tmp_path: Path, authorities: Authorities, protocol: str) -> None:
    with authorities.broker(tmp_path) as url:
        found = look(tmp_path, url, ca_file=authorities.ours, protocol=Path(protocol))
    assert codes(found) == [reach.TLS.code, broker.GOOD.code, "broker.rights"]
    assert found[0].found.startswith("TLSv1.3 with 127.0.0.1:")
    assert told(found, reach.TLS).found.endswith(f", whose certificate is for broker and valid until {day(900)}")


def test_a_certificate_of_an_authority_that_we_do_not_know(tmp_path: Path, authorities: Authorities) -> None:
    with authorities.broker(tmp_path) as url:
        found = look(tmp_path, url, ca_file=authorities.theirs)
        unnamed = look(tmp_path, url)
    one = told(found, reach.UNTRUSTED)
    assert re.search(r"is not trusted \(.* certificate.*\): it is for broker, issued by Our Authority$", one.found)
    assert one.advice.endswith(f"trusted now: those in {authorities.theirs}")
    assert told(unnamed, reach.UNTRUSTED).advice.endswith("trusted now: the system's authorities")
    assert codes(found) == [reach.UNTRUSTED.code]


@pytest.mark.parametrize("alternative", ["IP:192.0.2.7", "DNS:broker.example.org"])
def test_a_certificate_for_another_host(tmp_path: Path, authorities: Authorities, alternative: str) -> None:
    with authorities.broker(tmp_path, alternative=alternative) as url:
        address, name = (
            look(tmp_path, url, ca_file=authorities.ours),
            look(tmp_path, url.replace(HOST, "localhost"), ca_file=authorities.ours),
        )
    assert "is for another host: IP address mismatch" in told(address, reach.OTHER_HOST).found
    assert "is for another host: Hostname mismatch" in told(name, reach.OTHER_HOST).found


def test_a_certificate_that_has_expired(tmp_path: Path, authorities: Authorities) -> None:
    with authorities.broker(tmp_path, days=(-30, -3)) as url:
        found = look(tmp_path, url, ca_file=authorities.ours)
    assert told(found, reach.EXPIRED).found == f"the certificate of {url[8:]} has expired on {day(-3)}"


def test_a_certificate_of_the_future(tmp_path: Path, authorities: Authorities) -> None:
    """As a board without a battery sees it, whose clock has stopped."""
    with authorities.broker(tmp_path, days=(30, 900)) as url:
        found = look(tmp_path, url, ca_file=authorities.ours)
    assert told(found, reach.EARLY).found.endswith(f"is valid from {day(30)} on, but the clock says {day(0)}")


def test_a_certificate_that_will_expire(tmp_path: Path, authorities: Authorities) -> None:
    with authorities.broker(tmp_path, days=(-30, 9.5)) as url:
        found = look(tmp_path, url, ca_file=authorities.ours)
    assert told(found, reach.ENDING).found.endswith(f"expires on {day(9.5)}, in 9 days")
    assert codes(found)[-1] == "broker.rights"


def test_a_broker_that_wants_a_certificate(tmp_path: Path, authorities: Authorities) -> None:
    ours, theirs = (dated(ca, "board-1", "DNS:board-1", *LONG) for ca in (authorities.ours, authorities.theirs))
    with authorities.broker(tmp_path, more="require_certificate true\n") as url:
        without = look(tmp_path, url, ca_file=authorities.ours)
        wrong = look(tmp_path, url, ca_file=authorities.ours, cert_file=theirs[0], key_file=theirs[1])
        right = look(tmp_path, url, ca_file=authorities.ours, cert_file=ours[0], key_file=ours[1])
    assert "and none is configured: " in told(without, reach.NO_CERTIFICATE).found
    told(wrong, reach.REFUSED)
    assert codes(without) + codes(wrong) == [reach.NO_CERTIFICATE.code, reach.REFUSED.code]
    assert codes(right) == [reach.TLS.code, broker.GOOD.code, "broker.rights"]


def test_a_port_without_tls(tmp_path: Path, authorities: Authorities, monkeypatch: pytest.MonkeyPatch) -> None:
    with Mosquitto(tmp_path / "broker") as plain:
        found = look(tmp_path, f"mqtts://{HOST}:{plain.port}", ca_file=authorities.ours)
    assert told(found, reach.NO_TLS).found.startswith(f"{HOST}:{plain.port} does not speak TLS: ")
    monkeypatch.setattr(reach, "PATIENCE_S", 0.3)
    with counterfeit(lambda client: client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        told(look(tmp_path, f"mqtts://{HOST}:{port}", ca_file=authorities.ours), reach.NO_TLS)


def test_a_port_with_tls_that_is_taken_for_one_without(tmp_path: Path, authorities: Authorities) -> None:
    with authorities.broker(tmp_path) as url:
        found = look(tmp_path, url.replace("mqtts", "mqtt"))
    assert "if that one wants TLS, the url begins with mqtts://" in told(found, broker.NO_MQTT).advice
