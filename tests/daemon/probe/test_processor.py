from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.daemon.probe.processor import cpu_name, parse_list, usable_cores


def arm(*parts: tuple[int, int]) -> str:
    name = "ARMv8 Processor rev 1 (v8l)"
    return "".join(
        f"processor\t: {index}\nmodel name\t: {name}\nCPU implementer\t: {implementer:#x}\nCPU part\t: {part:#x}\n\n"
        for index, (implementer, part) in enumerate(parts)
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (arm(*[(0x41, 0xD03)] * 4), "Cortex-A53"),
        (arm(*[(0x41, 0xD42)] * 6), "Cortex-A78AE"),
        (arm(*[(0x4E, 0x004)] * 6), "NVIDIA Carmel"),
        (arm((0x41, 0xD05), (0x41, 0xD0B)), "Cortex-A55 + Cortex-A76"),
        (arm((0x99, 0x123)), "ARMv8 Processor rev 1 (v8l)"),
        ("model name\t: Intel(R) N100\nmodel name\t: Intel(R) N100\n", "Intel(R) N100"),
        ("CPU implementer\t: x\nCPU part\t: y\n", "unknown"),
        ("CPU part\t: 0xd03\n", "unknown"),
        ("model name\t:\n", "unknown"),
        (b"\xff\xfe", "unknown"),
        ("", "unknown"),
    ],
)
def test_name(plant: Callable[..., Path], content: str | bytes, name: str) -> None:
    assert cpu_name(plant({"proc/cpuinfo": content})) == name


def test_cores_of_this_machine_are_those_of_the_affinity() -> None:
    assert 1 <= usable_cores(Path("/")) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("allowed", "online", "cores"),
    [
        ("0-3", "0-3", 4),
        ("0-1", "0-3", 2),
        ("0-5", "0-3", 4),
        ("4-5", None, 2),
        (None, "0,2", 2),
        ("junk", "0-3", 4),
        ("9", "0-3", 1),
    ],
)
def test_cores_are_the_allowed_ones_that_are_on(
    plant: Callable[..., Path], allowed: str | None, online: str | None, cores: int
) -> None:
    files = {}
    if allowed is not None:
        files["proc/self/status"] = f"Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t{allowed}\n"
    if online is not None:
        files["sys/devices/system/cpu/online"] = f"{online}\n"
    assert usable_cores(plant(files)) == cores


def test_cores_are_counted_in_cpuinfo_for_want_of_better(plant: Callable[..., Path]) -> None:
    assert usable_cores(plant({"proc/cpuinfo": arm(*[(0x41, 0xD08)] * 4)})) == 4


def test_there_is_at_least_one_core(plant: Callable[..., Path]) -> None:
    assert usable_cores(plant({})) == 1


@pytest.mark.parametrize(("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("max 100000", 4)])
def test_a_quota_below_the_cores_counts(plant: Callable[..., Path], quota: str, cores: int) -> None:
    files = {"sys/devices/system/cpu/online": "0-3\n", "proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/cpu.max": f"{quota}\n"}
    assert usable_cores(plant(files)) == cores


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-3", {0, 1, 2, 3}),
        ("0,2-3,7", {0, 2, 3, 7}),
        ("5", {5}),
        ("", set()),
        ("a-b,1", {1}),
        ("3-1", set()),
        ("-1", set()),
        ("0-99999999999999999999", set()),
    ],
)
def test_lists(text: str, cores: set[int]) -> None:
    assert parse_list(text) == cores


@settings(derandomize=True, deadline=None, database=None)
@given(st.one_of(st.text(), st.text("0123456789-,", max_size=40)))
def test_no_text_breaks_lists(text: str) -> None:
    assert len(parse_list(text)) <= 4096
