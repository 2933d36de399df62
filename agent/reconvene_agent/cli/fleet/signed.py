"""Commands ready to be published: signed for each device, where there is a key to sign with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core import signing
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.messages import MAX_PAYLOAD


def encoded(key: Path | None, op: str, device: str, command_id: str, payload: dict[str, Any]) -> bytes:
    """Return the JSON of a command for one device, signed with the private ``key`` if there is one.

    Raises:
        UsageError: the key cannot be used, the command lives too long to be signed, or it is larger than agents accept.
    """
    if key is not None:
        payload = signing.sign(key, op, device, command_id, payload)
    content = msgspec.json.encode(payload)
    if len(content) > MAX_PAYLOAD:
        raise UsageError(f"the command has {len(content)} bytes; agents accept at most {MAX_PAYLOAD}")
    return content
