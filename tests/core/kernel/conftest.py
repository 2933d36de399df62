from __future__ import annotations

from support.planting import boards, plant

__all__ = ["boards", "plant"]
