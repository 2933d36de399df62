"""The way to the broker below MQTT: the host's name, the port, TLS and the broker's certificate."""

from __future__ import annotations

import errno
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.credentials import day
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, warning
from reconvene_agent.daemon.broker.link import Link
from reconvene_agent.daemon.security.certificate import Certificate, read_der

NO_NAME = problem(
    "broker.no-name",
    "the host {host} of broker.url is not known: {why}",
    "try: getent hosts {host}; correct broker.url in {file}, or the name service in /etc/resolv.conf",
)
NO_PORT = problem(
    "broker.no-port",
    "nobody listens at {host}:{port}",
    "start the broker there, or correct the port in broker.url in {file} (usually 1883, with TLS 8883)",
)
NO_ANSWER = problem(
    "broker.no-answer",
    "{host}:{port} cannot be reached: {why}",
    "try: ping {host}; see whether the board has a network (ip route), and whether a firewall is in between",
)
NO_TLS = problem(
    "broker.no-tls",
    "{host}:{port} does not speak TLS: {why}",
    "correct the port in broker.url in {file} (with TLS usually 8883); without TLS it must begin with mqtt://",
)
UNTRUSTED = problem(
    "broker.untrusted",
    "the certificate of {host}:{port} is not trusted ({why}): it is for {name}, issued by {issuer}",
    "put the certificate of the authority that issued it into broker.ca_file in {file}; trusted now: {trusted}",
)
OTHER_HOST = problem(
    "broker.other-host",
    "the certificate of {host}:{port} is for another host: {why}",
    "write the name that the certificate is for into broker.url in {file}, or have one made for {host}",
)
EXPIRED = problem(
    "broker.expired",
    "the certificate of {host}:{port} has expired on {day}",
    "have it renewed on the broker; nothing is wrong here",
)
EARLY = problem(
    "broker.early",
    "the certificate of {host}:{port} is valid from {day} on, but the clock says {today}",
    "set the clock: sudo timedatectl set-ntp true, or sudo date -s; if it is right, the broker's certificate was made for later",
)
NO_CERTIFICATE = problem(
    "broker.no-certificate",
    "{host}:{port} wants to see a certificate of this board, and none is configured: {why}",
    "have one made by the authority that the broker trusts, and name it and its key in {file} (broker.cert_file and key_file)",
)
REFUSED = problem(
    "broker.refused-certificate",
    "{host}:{port} does not accept this board's certificate: {why}",
    "have one made by the authority that the broker trusts (Mosquitto: cafile); the broker's log says what it does not like",
)
TLS = ok("broker.tls", "{version} with {host}:{port}, whose certificate is for {name} and valid until {day}")
ENDING = warning(
    "broker.ending", "the certificate of {host}:{port} expires on {day}, in {days} days", "have it renewed on the broker in time"
)

NAME_S = 5.0
PATIENCE_S = 5.0
REFUSAL_S = 0.5
_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
"""What OpenSSL calls a certificate for another host name, and for another address."""


class NotReachedError(Exception):
    """The way ends here; it holds why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


def reach(link: Link, context: ssl.SSLContext | None, file: Path) -> Iterator[Finding]:
    """Go as far as MQTT begins, and yield what is worth telling of the way.

    Raises:
        NotReachedError: the way ends before.
    """
    facts = {"host": link.host, "port": link.port, "file": file}
    _resolve(link, facts)
    with _connected(link, facts) as plain:
        if context is None:
            return
        try:
            with context.wrap_socket(plain, server_hostname=link.host) as secured:
                certificate = read_der(link.host, secured.getpeercert(binary_form=True) or b"")
                version = secured.version()
                _hear_refusal(secured, link, facts)
        except ssl.SSLCertVerificationError as error:
            raise NotReachedError(_distrusted(error, link, facts)) from error
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise NotReachedError(NO_TLS(**facts, why=_words(why))) from error
    yield TLS(**facts, version=version, name=certificate.name or link.host, day=day(certificate.ends))
    if certificate.ends_soon(time.time()):
        yield ENDING(**facts, day=day(certificate.ends), days=int((certificate.ends - time.time()) / 86400))


def _resolve(link: Link, facts: dict[str, object]) -> None:
    """Look the name up; in a thread, since the system's own patience may be far longer than ours."""
    answer: queue.SimpleQueue[str] = queue.SimpleQueue()

    def look() -> None:
        try:
            socket.getaddrinfo(link.host, link.port, type=socket.SOCK_STREAM)
            answer.put("")
        except (OSError, UnicodeError) as error:
            answer.put(getattr(error, "strerror", None) or str(error))

    threading.Thread(target=look, name="name", daemon=True).start()
    try:
        why = answer.get(timeout=NAME_S)
    except queue.Empty:
        why = f"no name server has answered within {NAME_S:g} s"
    if why:
        raise NotReachedError(NO_NAME(**facts, why=why))


def _connected(link: Link, facts: dict[str, object]) -> socket.socket:
    try:
        return socket.create_connection((link.host, link.port), PATIENCE_S)
    except TimeoutError as error:
        raise NotReachedError(NO_ANSWER(**facts, why=f"no answer within {PATIENCE_S:g} s")) from error
    except OSError as error:
        kind = NO_PORT if error.errno == errno.ECONNREFUSED else NO_ANSWER
        raise NotReachedError(kind(**facts, why=error.strerror or error)) from error


def _hear_refusal(secured: ssl.SSLSocket, link: Link, facts: dict[str, object]) -> None:
    """Give the broker the time to refuse our certificate, which TLS 1.3 lets it do after the handshake."""
    secured.settimeout(REFUSAL_S)
    try:
        secured.recv(1)
    except TimeoutError:
        return  # it waits for us, as it should
    except ssl.SSLError as error:
        kind = REFUSED if link.cert_file else NO_CERTIFICATE
        raise NotReachedError(kind(**facts, why=_words(error.reason or str(error)))) from error
    except OSError:
        return  # it hung up: what it thinks of MQTT is the next step's matter


def _distrusted(error: ssl.SSLCertVerificationError, link: Link, facts: dict[str, object]) -> Finding:
    """Return what is wrong with a certificate, which has to be fetched once more, since only trusted ones are handed out."""
    found = _peek(link)
    if error.verify_code in _OTHER_NAME:
        return OTHER_HOST(**facts, why=error.verify_message)
    if error.verify_code == _EXPIRED and found is not None and found.ends < time.time():
        return EXPIRED(**facts, day=day(found.ends))
    if error.verify_code == _NOT_YET and found is not None and found.begins > time.time():
        return EARLY(**facts, day=day(found.begins), today=day(time.time()))
    return UNTRUSTED(
        **facts,
        why=error.verify_message,
        name=found.name if found else "somebody",
        issuer=(found.issuer if found else "") or "somebody",
        trusted=f"those in {link.ca_file}" if link.ca_file else "the system's authorities",
    )


def _peek(link: Link) -> Certificate | None:
    """Return the broker's certificate whether it is trusted or not; nothing is sent over this connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((link.host, link.port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=link.host) as secured,
        ):
            return read_der(link.host, secured.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None


def _words(reason: str) -> str:
    """Return OpenSSL's short name of what is wrong as words."""
    return reason.replace("_", " ").lower() if reason.isupper() or "_" in reason else reason
