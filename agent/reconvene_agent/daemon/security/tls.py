"""The files that TLS and the password come from, checked before the agent starts; a mistake is one line that says what to do."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.errors import UsageError

if TYPE_CHECKING:
    from reconvene_agent.daemon.security.certificate import Certificate

_FILES = ("ca_file", "cert_file", "key_file", "password_file")
_MOST = 65536
"""What is looked at of a file, in characters; that of the authorities may be far larger."""
_SECRETS = {"key_file": "the private key", "password_file": "the password file"}


def check_files(broker: BrokerSection) -> Certificate | None:
    """Check the files that the configuration names; return the client's certificate, if there is one.

    Raises:
        UsageError: one cannot be read, a secret is open to others, or a private key is encrypted.
    """
    texts = {name: _content(name, Path(getattr(broker, name))) for name in _FILES if getattr(broker, name)}
    for name, what in _SECRETS.items():
        if name in texts:
            from reconvene_agent.core.keys import refuse_exposed

            refuse_exposed(Path(getattr(broker, name)), f"broker.{name}: {what}")
    if "ENCRYPTED" in texts.get("key_file", ""):
        file = broker.key_file
        raise UsageError(
            f"broker.key_file: {file} is encrypted, and nobody is there to unlock it: openssl pkey -in {file} -out NEW"
        )
    if "cert_file" not in texts:
        return None
    from reconvene_agent.daemon.security.certificate import read_certificate

    try:
        return read_certificate(broker.cert_file, texts["cert_file"])
    except ValueError as error:
        raise UsageError(f"broker.cert_file: {broker.cert_file}: {error}") from error


def tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Return a context that demands TLS 1.2 and a certificate for the host's name; empty names stand for no such file.

    Raises:
        UsageError: a certificate or key file cannot be used, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_file:
            context.load_verify_locations(ca_file)
        else:
            context.load_default_certs()
    except OSError as error:  # SSLError is one
        raise UsageError(f"broker.ca_file: {ca_file} holds no certificate that can be used: {_reason(error)}") from error
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file, password=_nobody_knows)
        except (OSError, ValueError) as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                raise UsageError(f"broker.key_file: {key_file} is not the key of the certificate {cert_file}") from error
            raise UsageError(f"broker.cert_file: {cert_file} with {key_file} cannot be used: {_reason(error)}") from error
    return context


def why(error: ssl.SSLError) -> str:
    """Return in a few words why TLS failed: what is wrong with the broker's certificate, or what the broker says of ours."""
    reason = str(error.reason or "")
    if reason.endswith("CERTIFICATE_REQUIRED"):
        return "the broker demands a client certificate: set broker.cert_file and broker.key_file"
    _, alert, said = reason.partition("_ALERT_")
    if alert:
        return f"the broker says: {said.replace('_', ' ').lower()}"
    return getattr(error, "verify_message", "") or reason or str(error)


def _nobody_knows() -> str:
    """Stand in the way of OpenSSL, which would ask on the terminal."""
    raise ValueError("the key is encrypted")


def _content(name: str, file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(_MOST)
    except OSError as error:
        raise UsageError(f"broker.{name}: {file} cannot be read: {error.strerror or error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
