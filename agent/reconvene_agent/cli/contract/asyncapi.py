"""The AsyncAPI 3.0 document of the wire contract, as plain data; ``docs/asyncapi.yaml`` is this written as YAML."""

from __future__ import annotations

from typing import Any

from reconvene_agent import __version__
from reconvene_agent.cli.contract import catalogue, schemas
from reconvene_agent.cli.contract.catalogue import Channel, Message
from reconvene_agent.cli.contract.examples import examples
from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import SERVICE
from reconvene_agent.daemon.broker.connection import MAX_PACKET, WILL_DELAY_S
from reconvene_agent.daemon.broker.link import SESSION_EXPIRY_S

Document = dict[str, Any]

_BINDING = "0.2.0"
_SECURITY = ("password", "certificate")

_DESCRIPTION = """\
What one agent says and hears over MQTT 5 or 3.1.1. Send and receive are the agent's: it sends its health, and receives commands.

Commands are published retained with status `init`; the agent answers on the same topic, retained, with `scheduled`, `executing`,
and `successful` or `failed`. Every field of the request stands in every state, whether it is known or not.

Later versions may add fields to what the agent publishes, and error codes, events and alarms: pass over what you do not know.
Unknown fields around a command's arguments are kept; an unknown argument is refused with SCHEMA.
"""

_PARAMETERS: Document = {
    "root": {"description": "First level of every topic: the setting `broker.root`.", "default": BrokerSection().root},
    "device_id": {
        "description": "The board's name: letters, digits and `. _ : -`, at most 128, the first a letter or digit.",
        "examples": ["board-1"],
    },
    "op": {"description": "The operation.", "examples": list(OPERATIONS)},
    "cmd_id": {
        "description": "The controller's name for the command, made as a device id; never used for two.",
        "examples": ["run-1"],
    },
}


def document() -> Document:
    """Return the whole document."""
    channels = list(catalogue.channels())
    return {
        "asyncapi": "3.0.0",
        "id": f"urn:{SERVICE}",
        "info": {
            "title": SERVICE,
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "tls": _server("secure-mqtt", "8883", "A broker that is reached with TLS 1.2 or newer."),
            "plain": _server("mqtt", "1883", "A broker without TLS; with user and password where it wants them."),
        },
        "channels": {channel.name: _channel(channel) for channel in channels},
        "operations": dict(sorted(operation for channel in channels for operation in _operations(channel))),
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
            "parameters": _PARAMETERS,
            "operationBindings": {
                "retained": {"mqtt": {"qos": 1, "retain": True, "bindingVersion": _BINDING}},
                "passing": {"mqtt": {"qos": 1, "retain": False, "bindingVersion": _BINDING}},
            },
            "serverBindings": {"session": {"mqtt": _session()}},
            "securitySchemes": {
                "password": {"type": "userPassword", "description": "MQTT user and password."},
                "certificate": {"type": "X509", "description": "Mutual TLS: a client certificate whose CN is the device id."},
            },
        },
    }


def _server(protocol: str, port: str, description: str) -> Document:
    schemes = _SECURITY if protocol == "secure-mqtt" else ()
    return {
        "host": "{host}:{port}",
        "protocol": protocol,
        "protocolVersion": "5.0",
        "description": f"{description} MQTT 3.1.1 is spoken where the broker knows no better.",
        "variables": {"host": {"description": "The broker.", "default": "localhost"}, "port": {"default": port}},
        **({"security": [_ref("securitySchemes", name) for name in schemes]} if schemes else {}),
        "bindings": _ref("serverBindings", "session"),
    }


def _session() -> Document:
    """Return how the agent connects."""
    will = {"topic": catalogue.PATTERN.health, "qos": 1, "retain": True, "message": '{"status":"down","session":"…"}'}
    return {
        "clientId": f"{SERVICE}-{{device_id}}",
        "cleanSession": False,
        "lastWill": will,
        "keepAlive": BrokerSection().keepalive_s,
        "sessionExpiryInterval": SESSION_EXPIRY_S,
        "maximumPacketSize": MAX_PACKET,
        "bindingVersion": _BINDING,
        "x-will-delay-interval": WILL_DELAY_S,
    }


def _channel(channel: Channel) -> Document:
    names = [name for name in _PARAMETERS if f"{{{name}}}" in channel.address]
    parameters: Document = {name: _ref("parameters", name) for name in names}
    if channel.name == "capability":
        parameters["op"] = {**_PARAMETERS["op"], "enum": list(OPERATIONS)}
        del parameters["op"]["examples"]
    return {
        "address": channel.address,
        "summary": channel.summary,
        "messages": {each.name: _ref("messages", each.name) for each in _every(channel)},
        "parameters": parameters,
    }


def _every(channel: Channel) -> list[Message]:
    return list({each.name: each for each in (*channel.received, *channel.sent)}.values())


def _operations(channel: Channel) -> list[tuple[str, Document]]:
    """Return what the agent does on a channel; a command's states are the reply to its request."""
    bindings = _ref("operationBindings", "retained" if channel.retained else "passing")

    def named(messages: tuple[Message, ...]) -> Document:
        return {
            "channel": {"$ref": f"#/channels/{channel.name}"},
            "messages": [{"$ref": f"#/channels/{channel.name}/messages/{each.name}"} for each in messages],
        }

    found = [(f"send_{channel.name}", {"action": "send", **named(channel.sent), "bindings": bindings})]
    if channel.received:
        is_command = channel.address.endswith("{cmd_id}")
        reply = {"reply": named(tuple(each for each in channel.sent if each.type is not None))} if is_command else {}
        found.append((f"receive_{channel.name}", {"action": "receive", **named(channel.received), "bindings": bindings, **reply}))
    return found


def _messages() -> Document:
    given = examples()

    def described(message: Message) -> Document:
        empty = message.type is None
        return {
            "name": message.name,
            "title": message.name,
            "summary": message.summary,
            "contentType": "text/plain" if empty else "application/json",
            "payload": {"type": "string", "maxLength": 0} if empty else _ref("schemas", message.name),
            "examples": [{"payload": each} for each in given.get(message.name, [])],
        }

    return {name: described(message) for name, message in sorted(catalogue.messages().items())}


def _schemas() -> Document:
    found = schemas.components("#/components/schemas/{name}")
    retryable = [code.value for code in ErrorCode if code.retryable]
    return {**found, "ErrorCode": {**found["ErrorCode"], "x-retryable": retryable}}


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}
