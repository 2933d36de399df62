"""``keys``: the controller's side of signed commands: make a key, look at one, sign a command with it."""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.cli.arguments import add_output, number, path
from reconvene_agent.cli.output import answer
from reconvene_agent.core import clock, keys, messages, signing
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.topics import Topics, valid_segment

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_args = msgspec.json.Decoder(dict[str, Any])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    generate = actions.add_parser(
        "generate", help="make a private key, and beside it FILE.pub.pem, the public key for the boards"
    )
    generate.add_argument("file", type=path, metavar="FILE", help="where the private key goes, such as fleet.pem")
    show = actions.add_parser("show", help="the id and the public key of a key, private or public")
    show.add_argument("file", type=path, metavar="FILE")
    sign = actions.add_parser("sign", help="print a signed command, ready to be published")
    sign.add_argument("op", metavar="OP", help="the operation, such as rollback")
    sign.add_argument("--key", type=path, required=True, metavar="FILE", help="the private key")
    sign.add_argument("--device", required=True, metavar="ID", help="the device that is to do it")
    sign.add_argument("--id", required=True, metavar="ID", help="the command's id, a new one for each command")
    sign.add_argument("--args", default="{}", metavar="JSON", help="its arguments (default: none)")
    sign.add_argument(
        "--expires", default="1h", metavar="TIME", help="how long it is good for, such as 90s, 10m, 1h, 7d (default: 1h)"
    )
    sign.add_argument("--not-before", metavar="TIME", help="when it may start, such as 2026-01-05T01:00:00Z")
    sign.add_argument("--timeout-s", type=number, metavar="N", help="how many seconds it may take")
    sign.add_argument("--requester", metavar="NAME", help="who asks, for the record")
    sign.add_argument("--root", default="te", metavar="LEVEL", help="first level of every topic (default: te)")
    for action in (generate, show, sign):
        add_output(action)


def run(arguments: argparse.Namespace) -> int:
    signing.require_library()
    if arguments.action == "generate":
        return answer(_generate(arguments.file), arguments.json, _print_generated)
    if arguments.action == "show":
        return answer(_shown(arguments.file), arguments.json, _print_key)
    return answer(_signed(arguments), arguments.json, _print_command)


def _generate(file: Path) -> dict[str, Any]:
    public_file = file.with_name(f"{file.name.removesuffix('.pem')}.pub.pem")
    if os.path.lexists(public_file):
        raise UsageError(f"{public_file} is already there, and a key is never written over: name another file")
    seed = signing.new_seed()
    key = signing.public_of(seed)
    keys.write_private(file, seed)
    keys.write_public(public_file, key)
    return {"key": key.id, "private": str(file), "public": str(public_file)}


def _print_generated(document: dict[str, Any]) -> None:
    print(f"{document['private']}: the private key {document['key']}; keep it where commands are signed, and nowhere else")
    print(f"{document['public']}: its public key; copy it into the folder security.trusted_keys of every board")


def _shown(file: Path) -> dict[str, Any]:
    try:
        key, kind = keys.read_public(file), "public"
    except UsageError as error:
        if "PRIVATE KEY" not in error.message:
            raise
        key, kind = signing.public_of(keys.read_private(file)), "private"
    return {"key": key.id, "kind": kind, "public_pem": key.pem.decode()}


def _print_key(document: dict[str, Any]) -> None:
    print(f"key {document['key']} ({document['kind']})")
    print(document["public_pem"], end="")


def _signed(arguments: argparse.Namespace) -> dict[str, Any]:
    for name in ("op", "device", "id", "root"):
        if not valid_segment(getattr(arguments, name)):
            raise UsageError(f"{name} must be made of letters, digits and . _ : -, at most 128, not {getattr(arguments, name)!r}")
    now = time.time()
    payload: dict[str, Any] = {
        "status": "init",
        "args": _arguments(arguments.op, arguments.args),
        "issued_at": clock.rfc3339(now),
        "expires_at": clock.rfc3339(now + _duration(arguments.expires)),
    }
    payload |= {name: value for name in signing.OPTIONAL if (value := getattr(arguments, name)) is not None}
    messages.decode_envelope(payload)
    signed = signing.sign(arguments.key, arguments.op, arguments.device, arguments.id, payload)
    sig = signed["sig"]
    topic = Topics(arguments.root, arguments.device).command(arguments.op, arguments.id)
    covered = signing.signed_bytes(arguments.op, arguments.device, arguments.id, signed, sig["nonce"]).decode()
    return {"topic": topic, "payload": signed, "signed": covered}


def _print_command(document: dict[str, Any]) -> None:
    print(msgspec.json.encode(document["payload"]).decode())


def _arguments(op: str, text: str) -> dict[str, Any]:
    """Return a command's arguments, once they are known to fit the operation."""
    try:
        args = from_json(text.encode(errors="replace"), _args.decode)
    except msgspec.DecodeError as error:
        raise UsageError(f"--args must be a JSON object, such as '{{\"steps\":1}}': {error}") from error
    messages.decode_args(op, args, {})
    return args


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise UsageError(f"--expires must look like 90s, 10m, 1h or 7d, not {text!r}")
    return float(found[1]) * _SECONDS[found[2]]
