"""How glibc's malloc keeps a worker's memory together: set in the environment that it starts with. Other C libraries ignore it.

PyTorch asks for aligned blocks. glibc cuts each from a larger one and remembers the small piece that is left as if it were in
use, so that the block, once freed, is too small for the next one of the same size, and the heap grows to twice what is in it.
Without caches of small pieces, a piece goes back to its neighbour. One arena for all threads lets each use what another freed.
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "GLIBC_TUNABLES"
_OURS = "glibc.malloc.arena_max=1:glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0"


def kept_together(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a worker; what was set in it already still counts, and before ours."""
    return {**environment, VARIABLE: ":".join(filter(None, (_OURS, environment.get(VARIABLE))))}


def as_usual(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that ``kept_together`` was given, for a process that is to be like any application."""
    if not environment.get(VARIABLE, "").startswith(_OURS):
        return dict(environment)
    before = environment[VARIABLE].removeprefix(_OURS).removeprefix(":")
    others = {name: value for name, value in environment.items() if name != VARIABLE}
    return {**others, VARIABLE: before} if before else others
