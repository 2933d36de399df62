"""How long to wait before trying again: exponential, with full jitter, so that a fleet does not come back in step."""

from __future__ import annotations

BASE_S = 1.0
CAP_S = 300.0


def delay(attempt: int, chance: float) -> float:
    """Return the seconds to wait after the failed try number ``attempt`` (from 0); ``chance`` is random, 0 to 1."""
    reach = min(CAP_S, BASE_S * 2.0 ** min(attempt + 1, 20))
    return max(BASE_S, chance * reach)
