from __future__ import annotations

from reconvene_agent.cli.doctor import memory
from reconvene_agent.cli.doctor.case import Case
from support.doctoring import told
from support.planting import Plant


def board(plant: Plant, available_mb: int, libraries_mb: float | None = None, **files: str) -> Case:
    info = f"MemTotal: {1000 * 1024} kB\nMemAvailable: {available_mb * 1024} kB\n"
    return Case(None, root=plant({"proc/meminfo": info, **files}), libraries_mb=libraries_mb)


def test_enough_memory(plant: Plant) -> None:
    found = told(memory.check(board(plant, 900, 250.4)), memory.GOOD)
    assert found.found == "900 of 1000 MiB are available; the worker's libraries take 250 MiB"


def test_where_the_libraries_could_not_be_loaded_the_usual_is_said(plant: Plant) -> None:
    assert told(memory.check(board(plant, 900)), memory.GOOD).found.endswith("take 300 MiB, as a rule")


def test_memory_that_leaves_little(plant: Plant) -> None:
    assert "libraries (250) leave 50 for training" in told(memory.check(board(plant, 300, 250)), memory.TIGHT).found


def test_memory_that_does_not_suffice(plant: Plant) -> None:
    found = told(memory.check(board(plant, 200, 250)), memory.SHORT)
    assert found.found == "200 of 1000 MiB are available, but the worker's libraries alone take 250 MiB"


def test_a_control_group_counts(plant: Plant) -> None:
    limits = {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": f"{100 << 20}\n"}
    found = told(memory.check(board(plant, 900, 250, **limits)), memory.SHORT)
    assert "100 of 100 MiB are available within /sys/fs/cgroup/box/memory.max, but" in found.found
