"""Commands as a controller makes them: checked before anything is sent, and the same for every device. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.messages import decode_args
from reconvene_agent.core.topics import valid_segment

_object = msgspec.json.Decoder(dict[str, Any])


def checked_args(op: str, text: str) -> dict[str, Any]:
    """Return the arguments of an operation from JSON.

    Raises:
        UsageError: there is no such operation, or these are no arguments for it.
    """
    try:
        args = from_json(text.encode(), _object.decode)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"--args must be a JSON object: {error}") from error
    decode_args(op, args, {})
    return args


def checked_devices(names: Iterable[str]) -> list[str]:
    """Return the devices, each once.

    Raises:
        UsageError: one is no device id.
    """
    devices = list(dict.fromkeys(names))
    for name in devices:
        if not valid_segment(name):
            raise UsageError(f"{name!r} is no device id: letters, digits and . _ : -, at most 128")
    return devices


def checked_id(given: str) -> str:
    """Return a command's id.

    Raises:
        UsageError: it is none.
    """
    if not valid_segment(given):
        raise UsageError(f"{given!r} is no command id: letters, digits and . _ : -, at most 128")
    return given


def new_id(kind: str, wall: float, chance: str) -> str:
    """Return an id for a command that is sent at ``wall``; ``chance`` makes it differ from others of the same second."""
    return f"{kind}-{re.sub('[^0-9T]', '', rfc3339(wall)[:19])}-{chance}"


def compose(args: dict[str, Any], requester: str, wall: float, expires_s: float | None) -> dict[str, Any]:
    """Return a command's payload, sent at ``wall``; ``expires_s`` later it must have begun."""
    payload: dict[str, Any] = {"status": "init", "args": args, "issued_at": rfc3339(wall), "requester": requester}
    if expires_s is not None:
        payload["expires_at"] = rfc3339(wall + expires_s)
    return payload


def counted(count: int) -> str:
    """Write a number of devices."""
    return "1 device" if count == 1 else f"{count} devices"


def exit_code_of(codes: Sequence[int]) -> int:
    """Return the exit code for what came of many devices: the failures' own where they agree, else 1; 0 without any."""
    failures = {code for code in codes if code}
    return 0 if not failures else failures.pop() if len(failures) == 1 else 1
