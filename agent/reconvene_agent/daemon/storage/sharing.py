"""How measurements and events share the bytes of the spool: who gives way to a new record. Pure.

Each kind may use what the other leaves. When all is taken, the one that takes more than its share gives way, measurements
first: events are sure of a ``reserve`` that no measurement gets into, measurements of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconvene_agent.daemon.effects import Kind


def can_have_room(held: Mapping[Kind, int], kind: Kind, size: int, limit: int, reserve: int) -> bool:
    """Whether ``size`` bytes of a kind fit into ``limit`` when everything that must has given way; ``held``: bytes by kind."""
    untouchable = min(held["event"], reserve) if kind == "measurement" else 0
    return size + untouchable <= limit


def gives_way(held: Mapping[Kind, int], kind: Kind, size: int, limit: int, reserve: int) -> Kind | None:
    """Return the kind whose oldest record has to go for ``size`` more bytes, which can have room; None when they fit."""
    if sum(held.values()) + size <= limit:
        return None
    events = held["event"] + (size if kind == "event" else 0)
    measurements = held["measurement"] + (size if kind == "measurement" else 0)
    if held["measurement"] and (measurements > limit - reserve or events <= reserve or not held["event"]):
        return "measurement"
    return "event"
