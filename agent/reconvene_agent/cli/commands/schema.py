"""``schema``: what each message on the wire holds, for those who write a controller."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import Any

import msgspec

from reconvene_agent.cli.arguments import add_output
from reconvene_agent.cli.contract import asyncapi, catalogue, schemas
from reconvene_agent.cli.output import print_json
from reconvene_agent.core.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("name", nargs="?", metavar="NAME", help="print the JSON Schema of this message; without it, list them")
    wanted.add_argument("--asyncapi", action="store_true", help="print the AsyncAPI document of the whole contract, as JSON")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.asyncapi:
        return _show(asyncapi.document(), arguments.json)
    if arguments.name is not None:
        return _show(_schema(arguments.name), arguments.json)
    if arguments.json:
        print_json({"messages": _listed()})
        return 0
    print(f"S is {catalogue.PATTERN.service}\n")
    for each in _listed():
        topics = [address.replace(catalogue.PATTERN.service, "S") for address in each["channels"]]
        print(f"{each['name']:<19} {topics[0]:<27} {each['summary']}")
        for topic in topics[1:]:
            print(f"{'':<19} {topic}")
    return 0


def _listed() -> list[dict[str, Any]]:
    """Return every message with its channels."""
    channels = list(catalogue.channels())
    return [
        {
            "name": message.name,
            "summary": message.summary,
            "channels": [channel.address for channel in channels if message in (*channel.sent, *channel.received)],
        }
        for message in catalogue.messages().values()
        if message.type is not None
    ]


def _schema(name: str) -> schemas.Schema:
    """Return the schema of a message.

    Raises:
        UsageError: there is none of this name.
    """
    try:
        return schemas.standalone(name)
    except LookupError as error:
        near = difflib.get_close_matches(name, [each["name"] for each in _listed()], 1)
        hint = f"is it {near[0]}?" if near else "'reconvene-agent schema' lists them"
        raise UsageError(f"there is no message {name!r}; {hint}") from error


def _show(document: schemas.Schema, in_one_line: bool) -> int:
    if in_one_line:
        print_json(document)
    else:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2)
        sys.stdout.flush()
        sys.stdout.buffer.write(text + b"\n")
        sys.stdout.flush()
    return 0
