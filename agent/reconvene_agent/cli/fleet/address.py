"""Where the fleet's broker is: from the command line, else from a configuration file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from reconvene_agent.cli.arguments import add_common, number
from reconvene_agent.cli.fleet.hub import Hub, new_client_id
from reconvene_agent.core import config
from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.errors import UsageError
from reconvene_agent.daemon.broker.link import Link, link_from

QUIET_S = 1.0
VARIABLE = "RECONVENE_FLEET_CONFIG"
_PROTOCOLS = get_args(get_type_hints(BrokerSection)["protocol"])
_OPTIONS = {
    "url": ("--broker", "URL", "mqtt://HOST[:1883] or mqtts://HOST[:8883] (default: the configuration's)"),
    "ca_file": ("--ca", "FILE", "certificate authority of the broker (default: the system's)"),
    "cert_file": ("--cert", "FILE", "our certificate, for mutual TLS"),
    "key_file": ("--key-file", "FILE", "its key"),
    "username": ("--username", "NAME", "our name at the broker"),
    "password_file": ("--password-file", "FILE", "a file whose first line is the password"),
    "root": ("--root", "LEVEL", "first level of every topic (default: te)"),
}


class Address(Struct, frozen=True):
    """How to reach the fleet: the broker, the first level of its topics, and how long what it retains may take to come."""

    link: Link
    root: str
    quiet_s: float

    def hub(self, *filters: str) -> Hub:
        """Return a connection that is not begun yet.

        Raises:
            AgentError: the TLS files cannot be used.
        """
        return Hub(self.link, filters, self.quiet_s)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the broker is, to every action of ``fleet``."""
    group = parser.add_argument_group("broker")
    for name, (flag, metavar, text) in _OPTIONS.items():
        group.add_argument(flag, dest=f"broker_{name}", metavar=metavar, help=text)
    group.add_argument("--protocol", dest="broker_protocol", choices=_PROTOCOLS, help="MQTT version (default: auto)")
    group.add_argument("--client-id", metavar="ID", help="our client id (default: one that nobody else has)")
    text = f"what is retained is complete when nothing new came for so long (default: {QUIET_S:g})"
    group.add_argument("--settle", type=number, default=QUIET_S, metavar="S", help=text)
    add_common(parser)


def address(arguments: argparse.Namespace) -> Address:
    """Return how to reach the fleet. With ``--broker`` nothing is taken from a file, so that no secret goes to the wrong one.

    Raises:
        UsageError: no broker is named, or what is said of it is wrong.
        AgentError: the password file cannot be read.
    """
    if arguments.settle <= 0:
        raise UsageError("--settle must be more than 0 seconds")
    given: dict[str, Any] = {
        name: value for name in (*_OPTIONS, "protocol") if (value := getattr(arguments, f"broker_{name}")) is not None
    }
    section = given if "url" in given else {**msgspec.to_builtins(_configured(arguments.config)), **given}
    settings = config.decode({"broker": section}).broker
    if not settings.url:
        raise UsageError(f"no broker is configured: name one with --broker, or a configuration file with --config or ${VARIABLE}")
    link = link_from(settings, arguments.client_id or new_client_id())
    return Address(msgspec.structs.replace(link, session_s=0), settings.root, arguments.settle)


def _configured(named: Path | None) -> BrokerSection:
    variable = os.environ.get(VARIABLE)
    return config.load(named or (Path(variable) if variable else None)).broker
