"""A controller's key, what it signs, and the folder of public keys that an agent trusts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from reconvene_agent.core import clock, keys, signing
from support.agents import TOPICS, WALL

SEED = bytes(range(32))
PUBLIC = signing.public_of(SEED)
TRUSTED = {PUBLIC.id: PUBLIC}


def signed(
    label: str,
    args: dict[str, Any] | None = None,
    wall: float = WALL,
    seed: bytes = SEED,
    device: str = TOPICS.device,
    **fields: Any,
) -> dict[str, Any]:
    """Return a command such as ``plan/1``, issued at ``wall``, good for an hour, and signed."""
    op, _, command_id = label.partition("/")
    times = {"issued_at": clock.rfc3339(wall), "expires_at": clock.rfc3339(wall + 3600)}
    payload = {"status": "init", "args": {} if args is None else args, **times, **fields}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "key.pem")
        keys.write_private(file, seed)
        return signing.sign(file, op, device, command_id, payload)


def trusting(folder: Path, *seeds: bytes) -> Path:
    """Make a folder with the public keys of these private ones; return it."""
    folder.mkdir(mode=0o755)
    for number, seed in enumerate(seeds or (SEED,)):
        keys.write_public(folder / f"{number}.pem", signing.public_of(seed))
    return folder
