"""Which inputs are held out, decided by their content: the same file or row is always on the same side, wherever it lies."""

from __future__ import annotations

import hashlib


def held_out(content: bytes | memoryview, share: float) -> bool:
    """Whether the input with this content belongs to the held-out ``share`` (0 to 1). Copies of an input go together."""
    digest = hashlib.sha256(content).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
