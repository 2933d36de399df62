"""What an X.509 certificate says of itself: its name, its issuer's, and when it is valid. Nothing is verified here.

The standard library reads certificates only once they are trusted; what is wrong with one that is not has to be told too.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timezone

from msgspec import Struct

_PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL)
_COMMON_NAME = bytes.fromhex("0603550403")
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _VERSION = 0x17, 0x18, 0x30, 0xA0


class Certificate(Struct, frozen=True):
    """The common names of a certificate and of its issuer, and its validity in seconds since the epoch."""

    name: str
    issuer: str
    begins: float
    ends: float


def from_pem(text: str) -> list[Certificate]:
    """Return the certificates in a PEM file.

    Raises:
        ValueError: one of them is damaged.
    """
    return [from_der(ssl.PEM_cert_to_DER_cert(found[0])) for found in _PEM.finditer(text)]


def from_der(der: bytes) -> Certificate:
    """Read one certificate.

    Raises:
        ValueError: it is damaged.
    """
    try:
        (_, certificate), *_ = _elements(der)
        (_, signed), *_ = _elements(certificate)
        fields = list(_elements(signed))
        if fields[0][0] == _VERSION:
            del fields[0]
        _serial, _algorithm, (_, issuer), (_, validity), (_, subject), *_ = fields
        begins, ends = (_moment(kind, value) for kind, value in _elements(validity))
    except IndexError as error:
        raise ValueError("it ends too early") from error
    return Certificate(_common_name(subject), _common_name(issuer), begins, ends)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of the DER elements that follow each other."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        if at + size > len(der):
            raise ValueError("it ends too early")
        yield tag, der[at : at + size]
        at += size


def _moment(kind: int, value: bytes) -> float:
    text = value.decode("ascii")
    if kind == _UTC_TIME:  # RFC 5280: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("it has no validity")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _common_name(name: bytes) -> str:
    """Return the last common name in a distinguished name; empty when there is none."""
    found = ""
    for _, group in _elements(name):
        for _, attribute in _elements(group):
            if attribute.startswith(_COMMON_NAME):
                (_, value), *_ = _elements(attribute[len(_COMMON_NAME) :])
                found = value.decode("utf-8", "replace")
    return found
