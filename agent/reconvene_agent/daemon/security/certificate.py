"""A certificate: whose it is, who issued it and how long it is good. Pure; reads the few fields of X.509 that it needs."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Literal

from msgspec import Struct

from reconvene_agent.core.clock import Now, rfc3339

SOON_S = 14 * 86400.0
SOON_SHARE = 0.25

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SEQUENCE, _SET, _OID, _VERSION, _UTC_TIME = 0x30, 0x31, 0x06, 0xA0, 0x17
_COMMON_NAME = bytes.fromhex("550403")


class Certificate(Struct, frozen=True):
    """Who it names, from when to when it is valid, in seconds since the epoch, and who issued it."""

    file: str
    name: str
    begins: float
    ends: float
    issuer: str = ""

    def trouble(self, now: Now) -> tuple[str, Literal["major", "minor"]] | None:
        """Return what is wrong with it, or will be soon, and how bad that is; nothing while the clock cannot be believed."""
        if not now.synchronized:
            return None
        if now.wall < self.begins:
            return f"the certificate {self.file} is not valid before {rfc3339(self.begins)}", "major"
        if now.wall >= self.ends:
            return f"the certificate {self.file} has expired on {rfc3339(self.ends)}: put a new one there and restart", "major"
        if self.ends_soon(now.wall):
            return f"the certificate {self.file} expires on {rfc3339(self.ends)}: put a new one there and restart", "minor"
        return None

    def ends_soon(self, wall: float) -> bool:
        """Whether little of its life is left at a time; some certificates live for days only."""
        return self.ends - wall < min(SOON_S, SOON_SHARE * (self.ends - self.begins))


def read_certificate(file: str, text: str) -> Certificate:
    """Return the first certificate in a PEM file.

    Raises:
        ValueError: there is none that can be read.
    """
    found = _PEM.search(text)
    if found is None:
        raise ValueError("no certificate in PEM is in it")
    return _from_base64(file, found[1])


def read_certificates(file: str, text: str) -> list[Certificate]:
    """Return every certificate in a PEM file.

    Raises:
        ValueError: one of them cannot be read.
    """
    return [_from_base64(file, found[1]) for found in _PEM.finditer(text)]


def _from_base64(file: str, text: str) -> Certificate:
    try:
        return read_der(file, binascii.a2b_base64(text))
    except binascii.Error as error:
        raise ValueError(f"its certificate cannot be read: {error}") from error


def read_der(file: str, der: bytes) -> Certificate:
    """Return a certificate from its bytes; raises as ``read_certificate`` does."""
    try:
        ((_, whole),) = _elements(der)
        fields = [element for element in _elements(next(_elements(whole))[1]) if element[0] != _VERSION]
        _serial, _algorithm, (_, issuer), (_, validity), (_, subject), *_ = fields
        begins, ends = (_moment(tag, content) for tag, content in _elements(validity))
        return Certificate(file, _common_name(subject), begins, ends, _common_name(issuer))
    except (ValueError, IndexError, StopIteration) as error:
        raise ValueError(f"its certificate cannot be read: {error}") from error


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element in a sequence of DER."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("it is cut off")
        yield tag, der[at : at + length]
        at += length


def _moment(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text < "5" else "19") + text
    # Not by strptime, which brings the locale's names of days along.
    parts = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z", text)
    if parts is None:
        raise ValueError(f"{text!r} is no time")
    return datetime(*(int(part) for part in parts.groups()), tzinfo=timezone.utc).timestamp()  # type: ignore[misc, arg-type]


def _common_name(subject: bytes) -> str:
    for tag, entry in _elements(subject):
        if tag != _SET:
            continue
        for _, pair in _elements(entry):
            (oid_tag, oid), (_, value) = _elements(pair)
            if oid_tag == _OID and oid == _COMMON_NAME:
                return value.decode("utf-8", "replace")
    return ""
