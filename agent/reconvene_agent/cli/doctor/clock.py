"""The clock: whether a time service vouches for it, whether it has gone back, and whether it jumps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, warning
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.daemon.probe.clock import clock_synchronized

GOOD = ok("clock.good", "a time service vouches for the clock, which says {now}")
TRUSTED = ok("clock.trusted", "no time service vouches for the clock, but agent.trust_clock is set; it says {now}")
UNSYNCHRONISED = warning(
    "clock.unsynchronised",
    "no time service vouches for the clock, which says {now}: commands that carry a time wait",
    "sudo timedatectl set-ntp true; where the clock is kept right by other means, set agent.trust_clock in {file}",
)
BEHIND = problem(
    "clock.behind",
    "the clock says {now}, but {path} was written at {then}: the clock has gone back, or was wrong then",
    "timedatectl shows the clock; let a time service set it (sudo timedatectl set-ntp true), or set it with sudo date -s",
)
JUMPED = warning(
    "clock.jumped",
    "the clock jumped by {seconds} s within the last {elapsed} s",
    "find out what sets it: timedatectl timesync-status; journalctl -u systemd-timesyncd -u chrony",
)

AHEAD_S = 60.0
JUMP_S = 0.5


def check(case: Case) -> Iterator[Finding]:
    wall, mono = time.time(), time.monotonic()
    now, trouble = rfc3339(wall), False
    newest = max(_written(case), default=None)
    if newest is not None and newest[0] > wall + AHEAD_S:
        trouble = True
        yield BEHIND(now=now, path=newest[1], then=rfc3339(newest[0]))
    elapsed = mono - case.clocks.mono
    jump = wall - case.clocks.wall - elapsed
    if abs(jump) > JUMP_S:
        trouble = True
        yield JUMPED(seconds=f"{jump:+.1f}", elapsed=f"{elapsed:.0f}")
    if clock_synchronized(case.root):
        if not trouble:
            yield GOOD(now=now)
    elif case.config is not None and case.config.agent.trust_clock:
        if not trouble:
            yield TRUSTED(now=now)
    else:
        yield UNSYNCHRONISED(now=now, file=case.settings)


def _written(case: Case) -> Iterator[tuple[float, Path]]:
    """Yield when files of the agent were written, as far as we may look."""
    files = [case.file] if case.file is not None else []
    if case.config is not None:
        files += [case.config.state_dir / name for name in ("status.json", "journal.db", "spool.db")]
    for file in files:
        with contextlib.suppress(OSError):
            yield file.stat().st_mtime, file
