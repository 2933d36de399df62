from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.cli.doctor import certificates
from support.certificates import authority, dated


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    ca = authority(tmp_path_factory.mktemp("ca"), "Our Authority")
    made, _ = dated(ca, "board-1", "DNS:board-1", -3, 700)
    return made.read_text() + ca.read_text()


def test_what_a_certificate_says(pem: str) -> None:
    own, ca = certificates.from_pem(f"remark\n{pem}remark")
    assert (own.name, own.issuer, ca.name, ca.issuer) == ("board-1", "Our Authority", "Our Authority", "Our Authority")
    assert abs(own.begins - (time.time() - 3 * 86400)) < 60
    assert abs(own.ends - (time.time() + 700 * 86400)) < 60


def test_the_dates_are_those_that_the_ssl_module_reads(pem: str, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    (trusted,) = context.get_ca_certs()
    ca = certificates.from_pem(pem)[1]
    assert ssl.cert_time_to_seconds(str(trusted["notBefore"])) == ca.begins
    assert ssl.cert_time_to_seconds(str(trusted["notAfter"])) == ca.ends


@pytest.mark.parametrize(
    ("text", "year"), [(b"\x17\x0d491231235959Z", 2049), (b"\x17\x0d500101000000Z", 1950), (b"\x18\x0f20500101000000Z", 2050)]
)
def test_both_ways_to_write_a_date(pem: str, text: bytes, year: int) -> None:
    kind, value = text[0], text[2:]
    assert time.gmtime(certificates._moment(kind, value)).tm_year == year


def test_no_certificate_at_all() -> None:
    assert certificates.from_pem("nothing\n") == []


def test_one_cut_off_anywhere_is_damaged(pem: str) -> None:
    der = ssl.PEM_cert_to_DER_cert(pem.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    for size in range(len(der)):
        with pytest.raises(ValueError, match=r"."):
            certificates.from_der(der[:size])


@given(st.data())
def test_one_changed_anywhere_is_damaged_or_says_something(pem: str, data: st.DataObject) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(pem.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        certificates.from_der(bytes(der))


@given(st.binary(max_size=80))
def test_rubbish_is_damaged(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        certificates.from_der(rubbish)
