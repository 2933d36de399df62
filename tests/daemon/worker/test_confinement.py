"""The rules of dividing a control group, on files that stand for the kernel's; tests/systemd has the kernel itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconvene_agent.core.budget import Budget
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import PlanRequest, Runtime, Scoring, TimeRequest
from reconvene_agent.daemon.worker import confinement

GROUP = "sys/fs/cgroup/reconvene.slice/reconvene-agent.service"
RUNTIME = Runtime(1, 1, ("CPUExecutionProvider",), 32)
PLAN = PlanRequest("/b", Budget(), RUNTIME, MethodOptions(), (0.5,), (1.0,), 32, scoring=Scoring(memory_mb=100.0))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a board whose service manager has left its group to the agent."""
    monkeypatch.setenv(confinement.DELEGATED, "1")
    files = {
        "proc/self/cgroup": f"0::/{GROUP.partition('cgroup/')[2]}\n",
        f"{GROUP}/cgroup.controllers": "memory pids\n",
        f"{GROUP}/cgroup.subtree_control": "\n",
        f"{GROUP}/cgroup.procs": f"{os.getpid()}\n",
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_agent_and_worker_get_a_group_each(root: Path) -> None:
    confinement.enclose(77, 300.0, root)
    group = root / GROUP
    assert (group / "agent/cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert (group / "worker/memory.max").read_text() == str(300 << 20)
    assert (group / "worker/cgroup.procs").read_text() == "77"


def test_an_agent_that_has_moved_already_divides_nothing_again(root: Path) -> None:
    group = root / GROUP
    (group / "agent").mkdir()
    (group / "agent/cgroup.procs").write_text(f"{os.getpid()}\n")
    (group / "cgroup.subtree_control").write_text("memory\n")
    (root / "proc/self/cgroup").write_text("0::/reconvene.slice/reconvene-agent.service/agent\n")
    confinement.enclose(78, None, root)
    assert (group / "worker/memory.max").read_text() == "max"
    assert (group / "worker/cgroup.procs").read_text() == "78"
    assert not (group / "agent/agent").exists()


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("proc/self/cgroup", "4:memory:/reconvene.slice/reconvene-agent.service\n", "no control groups of version 2"),
        (f"{GROUP}/cgroup.controllers", "pids\n", "does not count memory"),
    ],
)
def test_a_kernel_that_cannot_is_told(root: Path, file: str, text: str, why: str) -> None:
    (root / file).write_text(text)
    with pytest.raises(AgentError, match=why):
        confinement.enclose(77, 300.0, root)
    assert not (root / GROUP / "worker").exists()


def test_a_group_that_is_not_ours_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(confinement.DELEGATED)
    with pytest.raises(AgentError, match="no service manager"):
        confinement.enclose(77, 300.0, root)
    assert sorted(file.name for file in (root / GROUP).iterdir()) == [
        "cgroup.controllers",
        "cgroup.procs",
        "cgroup.subtree_control",
    ]


def test_a_group_that_cannot_be_divided_is_told(root: Path) -> None:
    (root / GROUP / "worker").write_text("a file where a folder is wanted")
    with pytest.raises(AgentError, match=r"worker: File exists"):
        confinement.enclose(77, 300.0, root)


def test_the_limit_is_above_the_libraries_and_none_where_a_gpu_computes() -> None:
    assert confinement.limit_mb(PLAN) == 100.0 + confinement.LIBRARIES_MB
    assert confinement.limit_mb(replace(PLAN, scoring=Scoring())) is None
    gpu = replace(RUNTIME, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert confinement.limit_mb(replace(PLAN, runtime=gpu)) is None
    assert confinement.limit_mb(TimeRequest("/models", RUNTIME)) is None
