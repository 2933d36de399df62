"""The broker: whether it can be reached, lets this board in, and gives it the rights that it needs on its own topics."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import msgspec

from reconvene_agent.cli.doctor import reach, rights
from reconvene_agent.cli.doctor.account import acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.core.topics import SERVICE, Topics
from reconvene_agent.daemon.broker.link import Link, link_from
from reconvene_agent.daemon.broker.visit import LostError, Visit
from reconvene_agent.daemon.security.tls import tls_context

NONE = skipped(
    "broker.none",
    "no broker is configured: the agent works by itself",
    "to have one, write broker.url into {file} and restart the agent",
)
OFFLINE = skipped("broker.offline", "the broker was left alone, as asked for", "leave --offline out to have it looked at")
UNREADABLE = skipped(
    "broker.unreadable",
    "the files that prove this board to the broker cannot be used: {why}",
    "see what is said of the credentials",
)
NO_MQTT = problem(
    "broker.no-mqtt",
    "{host}:{port} does not answer as an MQTT broker: {why}",
    "correct the port in broker.url in {file} (usually 1883); if that one wants TLS, the url begins with mqtts://",
)
WRONG_VERSION = problem(
    "broker.wrong-version",
    "the broker does not speak MQTT {version}, which broker.protocol asks for",
    "take broker.protocol out of {file}: what the broker speaks is then found out",
)
DENIED = problem(
    "broker.denied",
    "the broker does not let {who} in: {why}",
    "compare broker.username and the first line of broker.password_file in {file} with the broker's list of users; "
    "one that knows clients by their names must allow {client} as well as {agent}",
)
REFUSED = problem(
    "broker.refused",
    "the broker refuses the connection of the client {client}: {why}",
    "its log says why; brokers that know clients by their names must allow {client} as well as {agent}",
)
GOOD = ok("broker.good", "the broker at {host}:{port} lets {who} in and speaks MQTT {version}")
NO_RETAIN = problem(
    "broker.no-retain",
    "the broker keeps no retained messages, and commands and states are such",
    "allow them on the broker (Mosquitto: retain_available true)",
)
NO_QOS = problem(
    "broker.no-qos",
    "the broker takes QoS {qos} at most, so nothing that is sent to it is ever certain to arrive",
    "allow QoS 1 on the broker (Mosquitto: max_qos 2)",
)

SMALL = warning(
    "broker.small-packets",
    "the broker takes messages of {size} KiB at most, and results of commands may have {needed}",
    "raise the limit on the broker (Mosquitto: max_packet_size)",
)

_UNSUPPORTED_VERSION = 0x84
_DENIALS = (0x86, 0x87)
"""Bad user name or password, and not authorized."""


def check(case: Case) -> Iterator[Finding]:
    assert case.config is not None
    section = case.config.broker
    if not section.url:
        yield NONE(file=case.settings)
        return
    if case.offline:
        yield OFFLINE()
        return
    client = f"{SERVICE}-{case.config.device_id}-doctor"
    try:
        with acting_as(case.service):
            link = msgspec.structs.replace(link_from(section, client), session_s=0)
            context = tls_context(link.ca_file, link.cert_file, link.key_file) if link.tls else None
    except AgentError as error:
        yield UNREADABLE(why=error.message)
        return
    try:
        yield from reach.reach(link, context, case.settings)
    except reach.NotReachedError as end:
        yield end.finding
        return
    facts: dict[str, object] = {
        "host": link.host,
        "port": link.port,
        "file": case.settings,
        "client": client,
        "agent": client.removesuffix("-doctor"),
        "who": f"the user {link.username}" if link.username else "us without a user's name",
    }
    yield from _visit(case, link, context, facts)


def _visit(case: Case, link: Link, context: ssl.SSLContext | None, facts: dict[str, object]) -> Iterator[Finding]:
    """Knock in the versions that may be spoken, and go on in the first that is."""
    assert case.config is not None
    wanted = case.config.broker.protocol
    versions = ("5", "3.1.1") if wanted == "auto" else (wanted,)
    last = NO_MQTT(**facts, why="nothing was said")
    for version in versions:
        try:
            with Visit(link, version, context, reach.PATIENCE_S) as visit:
                greeting = visit.greeting()
                if greeting.code == _UNSUPPORTED_VERSION:
                    last = WRONG_VERSION(**facts, version=version)
                    continue
                if not greeting.accepted:
                    yield (DENIED if greeting.code in _DENIALS else REFUSED)(**facts, why=greeting.reason)
                    return
                yield GOOD(**facts, version=version)
                if not greeting.retains:
                    yield NO_RETAIN()
                if greeting.qos < 1:
                    yield NO_QOS(qos=greeting.qos)
                    return
                if greeting.largest is not None and greeting.largest < MAX_PAYLOAD:
                    yield SMALL(size=greeting.largest // 1024, needed=MAX_PAYLOAD // 1024)
                topics = Topics(case.config.broker.root, case.config.device_id)
                yield from rights.look(visit, version, topics, link.username, case.settings)
                return
        except LostError as error:
            last = NO_MQTT(**facts, why=error.message)
    yield last
