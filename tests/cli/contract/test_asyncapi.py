"""The AsyncAPI document: the one in ``docs`` is what the code says, and keeps the rules of AsyncAPI 3.0."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import yaml

from reconvene_agent.cli.contract import asyncapi, schemas
from reconvene_agent.core.errors import ErrorCode

ROOT = Path(__file__).parents[3]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text(encoding="utf-8"))
ADDRESS = re.compile(r"\{(\w+)\}")
KEY = re.compile(r"[A-Za-z0-9._-]+")

# By kind of object: the fields that must be there, and those that may.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "document": ({"asyncapi", "info", "channels", "operations", "components"}, {"id", "defaultContentType", "servers"}),
    "info": ({"title", "version"}, {"description", "license"}),
    "server": ({"host", "protocol"}, {"protocolVersion", "description", "variables", "security", "bindings"}),
    "channel": ({"address", "messages"}, {"summary", "parameters"}),
    "parameter": (set(), {"description", "default", "enum", "examples"}),
    "operation": ({"action", "channel"}, {"messages", "bindings", "reply"}),
    "reply": ({"channel"}, {"messages"}),
    "message": ({"name", "payload"}, {"title", "summary", "contentType", "examples"}),
    "example": ({"payload"}, {"name", "summary"}),
    "mqtt operation": (set(), {"qos", "retain", "messageExpiryInterval", "bindingVersion"}),
    "mqtt server": (
        set(),
        {"clientId", "cleanSession", "lastWill", "keepAlive", "sessionExpiryInterval", "maximumPacketSize", "bindingVersion"},
    ),
    "components": (
        set(),
        {"messages", "schemas", "parameters", "operationBindings", "serverBindings", "securitySchemes"},
    ),
}


def resolve(reference: str) -> Any:
    """Return what a reference into the document leads to."""
    found: Any = DOCUMENT
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        found = found[part]
    return found


def read(part: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the document, or what it refers to; beside a reference stands nothing."""
    if "$ref" in part:
        assert list(part) == ["$ref"]
        return read(resolve(part["$ref"]))
    return part


def has_shape(part: dict[str, Any], kind: str) -> None:
    needed, allowed = FIELDS[kind]
    fields = {name for name in part if not name.startswith("x-")}
    assert needed <= fields <= needed | allowed, f"{kind}: {sorted(fields)}"


CHANNELS: dict[str, Any] = DOCUMENT["channels"]
OPERATIONS: dict[str, Any] = DOCUMENT["operations"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


def test_the_file_is_what_the_code_says() -> None:
    written = runpy.run_path(str(ROOT / ".ci/asyncapi.py"))["written"]()
    assert (ROOT / "docs/asyncapi.yaml").read_text(encoding="utf-8") == written, "run '.ci/asyncapi.py --write'"
    assert yaml.safe_load(written) == msgspec.json.decode(msgspec.json.encode(asyncapi.document()))


def test_every_reference_leads_somewhere() -> None:
    found = set(schemas.referred(DOCUMENT))
    assert len(found) > 100
    for reference in found:
        assert resolve(reference) is not None


def test_the_document_has_its_parts() -> None:
    has_shape(DOCUMENT, "document")
    has_shape(DOCUMENT["info"], "info")
    has_shape(DOCUMENT["components"], "components")
    assert DOCUMENT["asyncapi"] == "3.0.0"
    for section in ("channels", "operations", "servers"):
        assert all(KEY.fullmatch(name) for name in DOCUMENT[section])
    for section in DOCUMENT["components"].values():
        assert all(KEY.fullmatch(name) for name in section)


def test_servers() -> None:
    for name in DOCUMENT["servers"]:
        server = DOCUMENT["servers"][name]
        has_shape(server, "server")
        assert set(ADDRESS.findall(server["host"])) == set(server["variables"])
        assert (server["protocol"] == "secure-mqtt") == ("security" in server)
        assert {read(each)["type"] for each in server.get("security", [])} <= {"userPassword", "X509"}
        mqtt = read(server["bindings"])["mqtt"]
        has_shape(mqtt, "mqtt server")
        assert mqtt["lastWill"]["topic"] == CHANNELS["health"]["address"]


def test_channels() -> None:
    for name, channel in CHANNELS.items():
        has_shape(channel, "channel")
        assert set(ADDRESS.findall(channel["address"])) == set(channel["parameters"])
        for parameter in channel["parameters"].values():
            has_shape(read(parameter), "parameter")
        for key, message in channel["messages"].items():
            assert read(message)["name"] == key
        assert any(each["channel"]["$ref"] == f"#/channels/{name}" for each in OPERATIONS.values())


def test_operations() -> None:
    for name, operation in OPERATIONS.items():
        has_shape(operation, "operation")
        assert operation["action"] == name.partition("_")[0]
        parts = [operation]
        if "reply" in operation:
            has_shape(operation["reply"], "reply")
            assert operation["action"] == "receive"
            parts.append(operation["reply"])
        for part in parts:
            place = part["channel"]["$ref"]
            assert part["messages"]
            assert all(message["$ref"].startswith(f"{place}/messages/") for message in part["messages"])
        mqtt = read(operation["bindings"])["mqtt"]
        has_shape(mqtt, "mqtt operation")
        assert mqtt["qos"] == 1


def test_messages() -> None:
    for message in MESSAGES.values():
        has_shape(message, "message")
        assert message["examples"], "generators and people look at them first"
        root = {**message["payload"], "components": DOCUMENT["components"]}
        for example in message["examples"]:
            has_shape(example, "example")
            jsonschema.Draft7Validator(root).validate(example["payload"])


def test_a_message_is_one_of_its_channel_s_alone() -> None:
    for name in CHANNELS:
        kinds = CHANNELS[name]["messages"]
        for own in kinds:
            for example in MESSAGES[own]["examples"]:
                fitting = []
                for other in kinds:
                    root = {**MESSAGES[other]["payload"], "components": DOCUMENT["components"]}
                    if jsonschema.Draft7Validator(root).is_valid(example["payload"]):
                        fitting.append(other)
                assert fitting == [own]


def test_error_codes() -> None:
    schema = DOCUMENT["components"]["schemas"]["ErrorCode"]
    assert set(schema["enum"]) == {code.value for code in ErrorCode}
    assert set(schema["x-retryable"]) == {code.value for code in ErrorCode if code.retryable}
