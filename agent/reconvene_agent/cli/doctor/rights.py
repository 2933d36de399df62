"""Rights on the broker, tried out on topics that are this agent's own and that nobody uses.

What is published is empty and not retained. On a command's topic that is what a controller sends to clear a command: where none
was given it changes nothing, so an agent that runs and hears it does nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.findings import Finding, ok, problem, warning
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.broker.visit import LostError, Visit

GOOD = ok("broker.rights", "the broker lets us publish below {service}, and lets us hear our commands")
NO_SUBSCRIPTION = problem(
    "broker.no-subscription",
    "the broker does not let us subscribe to {topic}: {why}",
    "allow it: in Mosquitto's ACL file, below 'user {user}', the line 'topic readwrite {service}/#'",
)
NO_PUBLISHING = problem(
    "broker.no-publishing",
    "the broker does not let us publish below {service} to {topics}: {why}",
    "allow it: in Mosquitto's ACL file, below 'user {user}', the line 'topic readwrite {service}/#'",
)
NO_COMMANDS = problem(
    "broker.no-commands",
    "what is published to {topic} does not come back to us, so commands would not arrive",
    "allow us to read and write it: in Mosquitto's ACL file, below 'user {user}', the line 'topic readwrite {service}/#'",
)
UNCERTAIN = warning(
    "broker.uncertain",
    "whether we may publish below {service} to {topics} cannot be told: nothing comes back, and MQTT 3.1.1 gives no reasons",
    "if the board's figures do not arrive, allow it: in Mosquitto's ACL file, below 'user {user}', 'topic readwrite {service}/#'",
)
OTHER_USER = warning(
    "broker.other-user",
    "the broker knows us as {user}, but the device id is {device}: access lists that go by the user's name refuse us our topics",
    "set agent.device_id in {file} to {user}, or let the broker know this board as {device}: the shipped access list wants that",
)
CUT_OFF = problem(
    "broker.cut-off",
    "the broker left us {doing}: {why}",
    "some brokers hang up on who may not do it: in Mosquitto's ACL file, below 'user {user}', add 'topic readwrite {service}/#'",
)

RETURN_S = 2.0


def look(visit: Visit, version: str, topics: Topics, user: str, file: Path) -> Iterator[Finding]:
    """Try out every kind of topic that the agent uses."""
    facts = {"service": topics.service, "user": user or topics.device}
    try:
        trouble = list(_trouble(visit, version, topics, facts))
    except LostError as error:
        trouble = [CUT_OFF(**facts, doing=visit.doing, why=error.message)]
    if trouble and user not in ("", topics.device):
        trouble.append(OTHER_USER(user=user, device=topics.device, file=file))
    yield from trouble or [GOOD(service=topics.service)]


def _trouble(visit: Visit, version: str, topics: Topics, facts: dict[str, str]) -> Iterator[Finding]:
    name = f"doctor-{secrets.token_hex(4)}"
    command = topics.command("ping", name)
    others = [f"{topics.service}/{kind}/{name}" for kind in ("twin", "m", "e", "a")]
    # MQTT 3.1.1 does not say that a publication is refused; there it can only be seen whether it comes back.
    deaf = version != "5"
    refused = {topic: why for topic in (topics.commands, topics.health) if (why := visit.subscribe(topic))}
    for topic, why in refused.items():
        yield NO_SUBSCRIPTION(**facts, topic=topic, why=why)
    hearing = {topic for topic in others if deaf and not visit.subscribe(topic)}
    silenced = {topic: why for topic in (command, *others) if (why := visit.publish(topic))}
    if silenced:
        kinds = _kinds(silenced, topics, name)
        yield NO_PUBLISHING(**facts, topics=kinds, why=next(iter(silenced.values())))
    if topics.commands not in refused and command not in silenced:
        hearing.add(command)
    returned = visit.returned(hearing, RETURN_S)
    if command in hearing - returned:
        yield NO_COMMANDS(**facts, topic=command.replace(name, "…"))
    lost = [topic for topic in others if deaf and topic not in returned]
    if lost:
        yield UNCERTAIN(**facts, topics=_kinds(lost, topics, name))


def _kinds(tried: Iterable[str], topics: Topics, name: str) -> str:
    """Return the kinds of topics that were tried: what stands between the service and our own name."""
    return ", ".join(topic.removeprefix(f"{topics.service}/").replace(name, "…") for topic in tried)
