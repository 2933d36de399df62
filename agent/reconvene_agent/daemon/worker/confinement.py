"""The worker in a control group of its own, with a limit of memory, so that one that wants more than planned dies alone.

That takes a group which the service manager leaves to us to divide (systemd's ``Delegate=``) and control groups of version 2.
Their rule is that a group which is divided holds no processes itself, so the agent moves into a part of it as well.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.kernel.files import HOST, read_text
from reconvene_agent.core.protocol import PlanRequest, Request, SpecializeRequest
from reconvene_agent.core.requests import memory_limits
from reconvene_agent.daemon.probe import cgroup

DELEGATED = "RECONVENE_AGENT_DELEGATED"
"""The unit sets it: without, the group may be shared with others, a login's for instance, and is not ours to divide."""
AGENT, WORKER = "agent", "worker"
LIBRARIES_MB = 640.0
"""What a run takes beside what its plan limits: 304 MiB for torch, ONNX Runtime and Python, 180 for torch's exporter, and some to
spare, since the limit is for a run that goes wrong and must never meet one that goes well."""
MIB = 1 << 20


def limit_mb(request: Request) -> float | None:
    """Return how much memory the worker that does this may take in all, in MiB; None where nobody can tell.

    That is so where it computes on a GPU, whose libraries take what they like.
    """
    plan = request.plan if isinstance(request, SpecializeRequest) else request
    if not isinstance(plan, PlanRequest) or any(name != "CPUExecutionProvider" for name in plan.runtime.providers):
        return None
    training = memory_limits(request).get("training_memory_mb")
    return None if training is None else training + LIBRARIES_MB


def enclose(pid: int, limit: float | None, root: Path = HOST) -> None:
    """Move a process that has only just begun into the worker's group, which from now on may take ``limit`` MiB.

    Raises:
        AgentError: there is no group that could be divided; the message says why. The process stays where it is.
    """
    if not os.environ.get(DELEGATED):
        raise AgentError("no service manager has given the agent a control group to divide")
    own = cgroup.own_group(root)
    if own is None:
        raise AgentError("the kernel has no control groups of version 2")
    service = own.parent if own.name == AGENT else own
    if "memory" not in (read_text(service / "cgroup.controllers") or "").split():
        raise AgentError("the kernel does not count memory by control groups of version 2")
    try:
        _divide(service)
        group = service / WORKER
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text("max" if limit is None else f"{limit * MIB:.0f}")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise AgentError(f"{error.filename or service}: {error.strerror or error}") from error


def _divide(service: Path) -> None:
    """Let the parts of the service's group count memory each by itself, once everything in it has moved into one of them."""
    if "memory" in (read_text(service / "cgroup.subtree_control") or "").split():
        return
    agent = service / AGENT
    agent.mkdir(exist_ok=True)
    for process in (service / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (agent / "cgroup.procs").write_text(process)
    (service / "cgroup.subtree_control").write_text("+memory")
