"""JSON Schemas of the messages, made of their types: shapes, limits, and what the docstrings say of each field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.cli.contract import catalogue

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_FIELD = re.compile(r"^([a-z0-9_, ]+): (.*)$")


@cache
def components(template: str) -> dict[str, Schema]:
    """Return the schema of every message and of what they are made of, by name; ``template`` makes a reference of a {name}.

    What is returned is shared and must not be changed.
    """
    told, asked = catalogue.outgoing(), catalogue.incoming()
    _, found = msgspec.json.schema_components([*asked, *told], ref_template=template)
    outward, inward = _structs(told), _structs(asked)
    for kind in (*inward, *outward):
        _describe(found[kind.__name__], kind)
    for kind in outward - inward:
        _complete(found[kind.__name__], kind)
    return {name: _without_siblings(schema) for name, schema in sorted(found.items())}


def standalone(name: str) -> Schema:
    """Return the schema of one message, or of a part of one, with all that it refers to.

    Raises:
        LookupError: there is none of this name.
    """
    everything = components("#/$defs/{name}")
    if name not in everything:
        raise LookupError(name)
    needed: dict[str, Schema] = {}
    waiting = list(referred(everything[name]))
    while waiting:
        part = waiting.pop().rpartition("/")[2]
        if part not in needed:
            needed[part] = everything[part]
            waiting += referred(everything[part])
    parts = {"$defs": dict(sorted(needed.items()))} if needed else {}
    return {"$schema": DIALECT, **everything[name], **parts}


def referred(schema: Any) -> Iterator[str]:
    """Yield every reference in a document."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from referred(value)
    elif isinstance(schema, (list, tuple)):
        for each in schema:
            yield from referred(each)


def _structs(kinds: Iterable[type[Struct]]) -> set[type[Struct]]:
    """Return these types and all that they are made of."""
    found: set[type[Struct]] = set()

    def look(at: Any) -> None:
        if isinstance(at, (tuple, list)):
            for each in at:
                look(each)
        elif isinstance(at, msgspec.inspect.StructType):
            if at.cls not in found:
                found.add(at.cls)
                look(at.fields)
        elif isinstance(at, (msgspec.inspect.Type, msgspec.inspect.Field)):
            for name in at.__struct_fields__:
                look(getattr(at, name))

    look(msgspec.inspect.multi_type_info(list(kinds)))
    return found


def _complete(schema: Schema, kind: type[Struct]) -> None:
    """Say that what the agent publishes is all there, but for what it leaves out as unset or as of no account."""
    for each in schema["properties"].values():
        each.pop("default", None)
    if not kind.__struct_config__.omit_defaults:
        optional = {field.encode_name for field in msgspec.structs.fields(kind) if field.default is msgspec.UNSET}
        schema["required"] = [name for name in schema["properties"] if name not in optional]


def _describe(schema: Schema, kind: type[Struct]) -> None:
    """Move what the docstrings say of single fields to these."""
    schema["description"] = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:")[0].strip().replace("``", "`")
    for base in reversed(kind.__mro__):
        for names, text in _attributes(base.__doc__ or ""):
            for name in names:
                if name in schema["properties"]:
                    schema["properties"][name]["description"] = text


def _attributes(doc: str) -> Iterator[tuple[list[str], str]]:
    """Yield the names and the text of every entry below ``Attributes:``."""
    lines = inspect.cleandoc(doc).partition("Attributes:\n")[2].splitlines()
    entries: list[str] = []
    for line in inspect.cleandoc("\n".join(["", *lines])).splitlines():
        if line.startswith(" "):
            entries[-1] += f" {line.strip()}"
        elif line:
            entries.append(line)
    for entry in entries:
        found = _FIELD.match(entry)
        if found:
            yield found[1].split(", "), found[2].replace("``", "`")


def _without_siblings(schema: Any) -> Any:
    """Return a schema in which nothing stands beside a reference: draft 07, which AsyncAPI builds on, passes over it."""
    if isinstance(schema, dict):
        inside = {name: _without_siblings(value) for name, value in schema.items()}
        if "$ref" in inside and len(inside) > 1:
            return {"allOf": [{"$ref": inside.pop("$ref")}], **inside}
        return inside
    if isinstance(schema, (list, tuple)):
        return [_without_siblings(each) for each in schema]
    return schema
