"""Runs that the agent starts by itself: the command it gives itself, and why it does not give it twice. Pure.

Such a command is journaled and published like any other, with ``"requester": "agent"`` and the ``cause``. Its id follows from
the cause, so the same cause never makes a second one, restarts of the agent included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from reconvene_agent.core.census import Census
from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.job import Command, digest_of
from reconvene_agent.core.release import Release

REQUESTER = "agent"
NEW_DATA = "new_data"
DRIFT = "drift"


def command(op: str, cause: dict[str, Any], now: Now, args: dict[str, Any] | None = None) -> Command:
    """Return a command of the agent's own; ``cause`` must say all that makes it another one than the last."""
    request = {"args": args or {}, "issued_at": rfc3339(now.wall), "requester": REQUESTER, "cause": cause}
    return Command(op, f"auto-{digest_of(cause)[:12]}", request, digest_of(request), now.wall, now.wall)


def is_own(given: Command) -> bool:
    """Whether the agent gave itself this command. What a controller calls itself does not count: the id must be ours."""
    cause = given.request.get("cause")
    return isinstance(cause, dict) and given.id == f"auto-{digest_of(cause)[:12]}"


def for_new_data(found: Census, trained: Census | None, known: Iterable[Command], share: float, now: Now) -> Command | None:
    """Return the run that new data call for, if they do.

    ``trained`` is what the current release was trained on. What an earlier run was started for counts as known too, however it
    ended: one that failed, or whose model was not good enough, is not repeated until as many new data have come again.
    """
    if not share or trained is None or trained.source != found.source:
        return None
    bases = [trained, *(base for given in known if (base := _counted(given)) is not None and base.source == found.source)]
    if any(found.new_since(base) < share for base in bases):
        return None
    return command("specialize", {"what": NEW_DATA, **msgspec.to_builtins(found)}, now)


def for_drift(release: Release, now: Now) -> Command:
    """Return the run that a release calls for that no longer fits its budget. There is one for each release."""
    return command("specialize", {"what": DRIFT, "release": release.version}, now)


def _counted(given: Command) -> Census | None:
    """Return the data that a run was started for."""
    if not is_own(given) or given.request["cause"].get("what") != NEW_DATA:
        return None
    try:
        return msgspec.convert(given.request["cause"], Census)
    except msgspec.ValidationError:
        return None
