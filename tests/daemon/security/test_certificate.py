from __future__ import annotations

import base64
import contextlib
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.clock import Now
from reconvene_agent.daemon.security.certificate import Certificate, read_certificate
from support.certificates import authority, certificate

DAY = 86400.0
PINNED = Certificate("/etc/board.crt", "board-1", 100 * DAY, 200 * DAY)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ca = authority(tmp_path_factory.mktemp("certificates"), "ours")
    return certificate(ca, "board-1", "DNS:board-1")[0]


def told_by_openssl(file: Path, which: str) -> float:
    words = ["openssl", "x509", "-in", str(file), "-noout", f"-{which}"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout.partition("=")[2].strip()
    return datetime.strptime(text, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc).timestamp()


def test_a_certificate_is_read_as_openssl_reads_it(made: Path, tmp_path: Path) -> None:
    text = made.read_text()
    expected = Certificate("f", "board-1", told_by_openssl(made, "startdate"), told_by_openssl(made, "enddate"), "ours")
    assert read_certificate("f", text) == expected
    assert read_certificate("f", f"a remark\r\n{text}{text[:100]}") == expected, "the first one counts"
    unnamed, far = tmp_path / "unnamed.pem", ("-days", "20000", "-subj", "/O=somebody/OU=something")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out", unnamed, *far],
        check=True, capture_output=True,
    )  # fmt: skip
    assert read_certificate("f", unnamed.read_text()).name == ""
    assert read_certificate("f", unnamed.read_text()).ends == told_by_openssl(unnamed, "enddate"), (
        "beyond 2049 it is written otherwise"
    )


@given(st.data())
def test_what_is_no_certificate_is_a_value_error(made: Path, data: st.DataObject) -> None:
    der = bytearray(base64.b64decode("".join(made.read_text().splitlines()[1:-1])))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, min(300, len(der) - 1)))] = data.draw(st.integers(0, 255))
    del der[data.draw(st.integers(1, len(der))) :]
    text = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"
    with contextlib.suppress(ValueError):
        read_certificate("f", text)


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nAA\n"]
)
def test_text_that_holds_none(text: str) -> None:
    with pytest.raises(ValueError, match="no certificate in PEM is in it"):
        read_certificate("f", text)


@pytest.mark.parametrize(
    ("day", "severity", "words"),
    [
        (99, "major", "is not valid before 1970-04-11T00:00:00.000Z"),
        (100, None, ""),
        (186, None, ""),
        (186.1, "minor", "expires on 1970-07-20T00:00:00.000Z: put a new one there and restart"),
        (200, "major", "has expired on 1970-07-20T00:00:00.000Z: put a new one there and restart"),
    ],
)
def test_it_is_told_when_it_is_not_valid_or_not_for_long(day: float, severity: str | None, words: str) -> None:
    found = PINNED.trouble(Now(day * DAY, 0.0))
    assert found == (None if severity is None else (f"the certificate /etc/board.crt {words}", severity))
    assert PINNED.trouble(Now(day * DAY, 0.0, synchronized=False)) is None


def test_one_that_never_lives_long_is_not_always_about_to_expire() -> None:
    brief = Certificate("f", "", 0.0, DAY)
    assert brief.trouble(Now(0.7 * DAY, 0.0)) is None
    assert brief.trouble(Now(0.8 * DAY, 0.0)) is not None
