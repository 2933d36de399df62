"""How to reach a broker, as the configuration says and with its secrets read."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.consistency import broker_address
from reconvene_agent.core.errors import AgentError

SESSION_EXPIRY_S = 7 * 24 * 3600


class Link(Struct, frozen=True):
    """How to reach a broker, with every secret already read.

    For ``session_s`` seconds the broker keeps what comes while we are away; 0 begins and ends a session with each connection.
    """

    host: str
    port: int
    client_id: str
    protocol: str
    keepalive_s: int
    username: str = ""
    password: str = ""
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    session_s: int = SESSION_EXPIRY_S


def link_from(section: BrokerSection, client_id: str) -> Link:
    """Return how to reach the configured broker.

    Raises:
        AgentError: the password file cannot be read.
    """
    host, port, tls = broker_address(section.url)
    password = ""
    if section.password_file:
        try:
            password = Path(section.password_file).read_text(encoding="utf-8").splitlines()[0].strip()
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise AgentError(f"no password can be read from {section.password_file}: {error}") from error
    return Link(
        host=host,
        port=port,
        client_id=client_id,
        protocol=section.protocol,
        keepalive_s=section.keepalive_s,
        username=section.username,
        password=password,
        tls=tls,
        ca_file=section.ca_file,
        cert_file=section.cert_file,
        key_file=section.key_file,
    )
