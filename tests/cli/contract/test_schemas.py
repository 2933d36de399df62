"""The schemas say what the types say: examples pass, and whatever lacks a field or has it in another type does not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import msgspec

from reconvene_agent.cli.contract import catalogue, schemas
from reconvene_agent.cli.contract.examples import examples
from reconvene_agent.core.job import AGENT_FIELDS
from support.contract import difference_from

COMPONENTS = schemas.components("#/components/schemas/{name}")
EXAMPLES = [(name, payload) for name, payloads in examples().items() for payload in payloads if name != "Cleared"]

# What draft 07, on which AsyncAPI builds, and 2020-12 both know and understand alike.
KEYWORDS = {
    *("title", "description", "type", "properties", "required", "additionalProperties", "default", "enum", "format", "items"),
    *("$ref", "allOf", "anyOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "minItems", "maxItems", "propertyNames", "const"),
}


@cache
def validator(name: str, kind: type[Any] = jsonschema.Draft202012Validator) -> Any:
    return kind(schemas.standalone(name))


def changed(document: dict[str, Any], schema: schemas.Schema) -> Iterator[dict[str, Any]]:
    """Yield the document without each field that must be there, and with each field in a type that it cannot have."""
    for name in schema["required"]:
        yield {key: value for key, value in document.items() if key != name}
    for name, shape in schema["properties"].items():
        if name in document and shape:
            yield {**document, name: [{"no": "such"}]}


def keywords(schema: Any) -> Iterator[str]:
    """Yield every keyword in a schema."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            yield name
            if name == "properties":
                for each in value.values():
                    yield from keywords(each)
            elif name not in ("default", "enum", "const"):
                yield from keywords(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from keywords(each)


def test_every_message_has_an_example() -> None:
    assert set(examples()) == set(catalogue.messages()), "see cli/contract/examples.py"


def test_examples_are_valid() -> None:
    for name, payload in EXAMPLES:
        plain = msgspec.json.decode(msgspec.json.encode(payload))
        for kind in (jsonschema.Draft7Validator, jsonschema.Draft202012Validator):
            validator(name, kind).validate(plain)
        message = catalogue.messages()[name]
        assert message.type is not None
        if name.endswith("Request"):  # which may leave out what it likes
            msgspec.convert(plain, message.type)
            continue
        if name.endswith("State"):
            plain = {key: value for key, value in plain.items() if key in AGENT_FIELDS}
        assert difference_from(message.type, plain) is None


def test_what_lacks_a_field_or_has_another_type_is_refused() -> None:
    for name, payload in EXAMPLES:
        plain = msgspec.json.decode(msgspec.json.encode(payload))
        check = validator(name)
        kind = catalogue.messages()[name].type
        assert kind is not None
        for bad in changed(plain, COMPONENTS[name]):
            assert not check.is_valid(bad), f"{name} would pass as {bad}"
            assert difference_from(kind, bad) is not None


def test_an_argument_that_does_not_exist_is_refused_and_a_field_around_it_is_not() -> None:
    for name, payload in (each for each in EXAMPLES if each[0].endswith("Request")):
        check = validator(name)
        assert check.is_valid({**payload, "x-trace": [1]})
        if name != "Request":
            assert not check.is_valid({**payload, "args": {**payload["args"], "x-trace": [1]}})


def test_what_is_published_may_grow() -> None:
    for kind in schemas._structs(catalogue.outgoing()):
        schema = COMPONENTS[kind.__name__]
        assert "additionalProperties" not in schema
        assert not any("default" in each for each in schema["properties"].values())


def test_a_field_too_many_is_found() -> None:
    registration = {"@type": "service", "name": "x", "type": "y"}
    kind = catalogue.messages()["Registration"].type
    assert kind is not None
    assert difference_from(kind, registration) is None
    assert difference_from(kind, {**registration, "more": 1}) == "Registration: `$.more` is not declared"
    up = next(payload for name, payload in EXAMPLES if name == "Hardware")
    deep = copy.deepcopy(up)
    deep["memory"]["more"] = 1
    hardware = catalogue.messages()["Hardware"].type
    assert hardware is not None
    found = difference_from(hardware, msgspec.json.decode(msgspec.json.encode(deep)))
    assert found == "Hardware: `$.memory.more` is not declared"


def test_both_dialects_understand_them_alike() -> None:
    assert {word for schema in COMPONENTS.values() for word in keywords(schema)} <= KEYWORDS
    for schema in COMPONENTS.values():
        jsonschema.Draft7Validator.check_schema(schema)
        jsonschema.Draft202012Validator.check_schema(schema)


def test_a_schema_by_itself_holds_all_that_it_refers_to() -> None:
    for name in COMPONENTS:
        schema = schemas.standalone(name)
        parts = schema.get("$defs", {})
        assert {reference.removeprefix("#/$defs/") for reference in schemas.referred(schema)} == set(parts) or name in parts
        assert schema["$schema"] == schemas.DIALECT


def test_fields_say_what_they_hold() -> None:
    assert COMPONENTS["SpecializeArgs"]["properties"]["sparsities"]["description"] == "the candidates of the plan."
    assert COMPONENTS["BrokerSettings"]["properties"]["key_file"]["description"].startswith("the client's certificate")
    described = COMPONENTS["Epoch"]["properties"]
    assert described["seq"]["description"].startswith("grows from record to record")
    assert "Attributes" not in str(COMPONENTS)
    assert "``" not in str({name: each.get("description") for name, each in COMPONENTS.items()})


def test_secrets_are_not_told() -> None:
    assert COMPONENTS["BrokerSettings"]["properties"]["password_file"]["type"] == "boolean"
