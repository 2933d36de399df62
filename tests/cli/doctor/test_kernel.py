from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import kernel
from reconvene_agent.cli.doctor.case import Case
from support.doctoring import case, codes, told
from support.planting import Plant


def test_nothing_in_the_way(plant: Plant) -> None:
    root = plant({"proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t100\t1\n"})
    assert codes(kernel.check(Case(None, root=root))) == [kernel.GOOD.code]


def test_a_kernel_that_counts_no_memory_as_raspberry_pi_os_sets_it(plant: Plant) -> None:
    root = plant({"proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t90\t1\nmemory\t0\t90\t0\n"})
    assert "cgroup_enable=memory" in told(kernel.check(Case(None, root=root)), kernel.NO_ACCOUNTING).advice


def test_a_kernel_that_promises_no_memory(plant: Plant) -> None:
    told(kernel.check(Case(None, root=plant({"proc/sys/vm/overcommit_memory": "2\n"}))), kernel.OVERCOMMIT)


def test_a_limit_on_the_agent_that_its_worker_cannot_live_in(plant: Plant) -> None:
    files = {
        "proc/self/cgroup": "0::/user.slice\n",
        "proc/77/cgroup": "0::/system.slice/reconvene-agent.service\n",
        "sys/fs/cgroup/system.slice/reconvene-agent.service/memory.max": f"{200 << 20}\n",
    }
    found = told(kernel.check(Case(None, root=plant(files), pid=77, libraries_mb=250)), kernel.LIMIT)
    assert found.found.startswith("/sys/fs/cgroup/system.slice/reconvene-agent.service/memory.max allows the agent")
    assert "200 MiB together" in found.found
    assert codes(kernel.check(Case(None, root=plant(files), pid=77, libraries_mb=150))) == [kernel.GOOD.code]
    assert codes(kernel.check(Case(None, root=plant(files), libraries_mb=250))) == [kernel.GOOD.code], "it is the agent's limit"


@contextmanager
def in_a_sandbox(*commands: str) -> Iterator[int]:
    """Run a process in mounts of its own, once the commands have changed them; yield its number."""
    script = " && ".join([*commands, "echo ready", "exec cat"])
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            if process.stdout.readline() != b"ready\n":
                pytest.skip(f"NOT TESTED: a sandbox, which cannot be made here: {process.stderr.read().decode().strip()}")
            yield process.pid
        finally:
            process.stdin.close()


@pytest.mark.usefixtures("as_root")
def test_a_sandbox_in_which_the_state_cannot_be_written(tmp_path: Path, plant: Plant) -> None:
    made = case(tmp_path)
    made.root = plant({"proc/x": ""})
    assert made.config is not None
    state = made.config.state_dir
    with in_a_sandbox(f"mount --bind {state} {state}", f"mount -o remount,bind,ro {state}") as made.pid:
        found = told(kernel.check(made), kernel.SANDBOXED)
    assert f"ReadWritePaths={state}" in found.advice


@pytest.mark.usefixtures("as_root")
def test_a_sandbox_that_hides_the_memory(tmp_path: Path, plant: Plant) -> None:
    made = case(tmp_path)
    made.root = plant({"proc/x": ""})
    with in_a_sandbox("mount -t proc -o subset=pid proc /proc") as made.pid:
        found = list(kernel.check(made))
    assert codes(found) == [kernel.BLINDED.code]
    told(found, kernel.BLINDED)


@pytest.mark.usefixtures("as_root")
def test_a_process_without_a_sandbox(tmp_path: Path, plant: Plant) -> None:
    made = case(tmp_path)
    made.root = plant({"proc/x": ""})
    with in_a_sandbox("true") as made.pid:
        assert codes(kernel.check(made)) == [kernel.GOOD.code]
