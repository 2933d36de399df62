"""Limits that kernel and service manager set, and that no error message names when they bite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, warning
from reconvene_agent.cli.doctor.memory import TYPICAL_MB
from reconvene_agent.core.kernel.files import HOST, read_line, read_text
from reconvene_agent.daemon.probe.cgroup import memory_limits

GOOD = ok("kernel.good", "no limit of kernel or service manager is in the way")
NO_ACCOUNTING = warning(
    "kernel.no-accounting",
    "the kernel does not count memory by control group: limits such as MemoryMax have no effect",
    "append cgroup_enable=memory to the line in /boot/firmware/cmdline.txt (/boot/cmdline.txt on older systems), and reboot",
)
OVERCOMMIT = warning(
    "kernel.overcommit",
    "the kernel promises no more memory than there is (vm.overcommit_memory is 2), and torch asks for far more than it uses",
    "sudo sysctl vm.overcommit_memory=0, and the same in /etc/sysctl.d",
)
LIMIT = problem(
    "kernel.memory-limit",
    "{file} allows the agent and its worker {limit} MiB together, and the worker's libraries alone take {need} MiB",
    "raise MemoryMax and MemoryHigh: sudo systemctl edit reconvene-agent, or edit the slice that it is in",
)
SANDBOXED = problem(
    "kernel.sandbox",
    "for the agent that runs, {path} is read-only, though it is not for others: the sandbox of its service",
    "add ReadWritePaths={path} under [Service]: sudo systemctl edit reconvene-agent, then restart it",
)
BLINDED = problem(
    "kernel.hidden-proc",
    "the agent that runs cannot see /proc/meminfo: the sandbox of its service hides it",
    "take ProcSubset=pid out of the unit's drop-ins: systemctl cat reconvene-agent shows them",
)

MIB = 1 << 20


def check(case: Case) -> Iterator[Finding]:
    found = [*_accounting(case.root), *_overcommit(case.root), *_limits(case), *_sandbox(case)]
    yield from found or [GOOD()]


def _accounting(root: Path) -> Iterator[Finding]:
    for line in (read_text(root / "proc/cgroups") or "").splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[0] == "memory" and fields[3] == "0":
            yield NO_ACCOUNTING()


def _overcommit(root: Path) -> Iterator[Finding]:
    if read_line(root / "proc/sys/vm/overcommit_memory") == "2":
        yield OVERCOMMIT()


def _limits(case: Case) -> Iterator[Finding]:
    """Compare the limits on the agent that runs, else on this process, with what the worker takes."""
    need = case.libraries_mb or TYPICAL_MB
    limits = memory_limits(case.root, "self" if case.pid is None else str(case.pid))
    tightest = min(limits, key=lambda limit: limit.limit, default=None)
    if case.pid is not None and tightest is not None and tightest.limit < need * MIB:
        yield LIMIT(file=tightest.file, limit=f"{tightest.limit / MIB:.0f}", need=f"{need:.0f}")


def _sandbox(case: Case) -> Iterator[Finding]:
    """Look at the files of the agent that runs as it sees them, where we may."""
    if case.pid is None or case.config is None:
        return
    seen = HOST / "proc" / str(case.pid) / "root"
    path = case.config.state_dir
    try:
        # Through its link the kernel shows another process's mounts.
        theirs, ours = os.statvfs(f"{seen}{path}"), os.statvfs(path)
        if theirs.f_flag & os.ST_RDONLY and not ours.f_flag & os.ST_RDONLY:
            yield SANDBOXED(path=path)
        (seen / "proc").stat()
        if not (seen / "proc/meminfo").exists():
            yield BLINDED()
    except OSError:
        return  # only root may look there
