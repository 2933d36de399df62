"""What can be done from inside of the service's sandbox, tried there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.guests import HOME, STATE, UNIT, Guest

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(400)]

PROBES = f"{HOME}/checkout/tests/systemd/probes.py"
# In a container root itself may not do these, so that nothing shows that the attempt is a fair one.
UNFAIR = {"write a kernel setting", "load a module", "unload a module", "swap", "kernel log", "AF_ALG"}


@pytest.fixture(scope="module")
def told(guest: Guest) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what the probes met in the sandbox, and what they met as root without one."""
    guest.run("install", "--mode=4755", "/usr/bin/id", "/usr/local/bin/roots-id")
    guest.run("touch", "/dev/shm/others")
    python = f"{HOME}/venv/bin/python"
    guest.run("systemctl", "stop", UNIT)
    run = f"ExecStart=\nExecStart={python} {PROBES} {STATE}/probes.json\n"
    guest.drop_in("probes", f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\n{run}")
    try:
        guest.run("systemctl", "start", UNIT)
    finally:
        guest.drop_in("probes", "")
    inside = guest.run("cat", f"{STATE}/probes.json")
    guest.run("mkdir", "/run/reconvene-agent")
    guest.run(python, PROBES, "/root/probes.json")
    guest.run("rmdir", "/run/reconvene-agent")
    yield json.loads(inside), json.loads(guest.run("cat", "/root/probes.json"))
    guest.run("rm", f"{STATE}/probes.json", "/dev/shm/others", "/usr/local/bin/roots-id")


def test_nothing_is_possible_that_the_agent_does_not_need(told: tuple[dict[str, Any], dict[str, Any]]) -> None:
    inside, outside = told
    assert [what for what, error in inside["forbidden"].items() if error is None] == []
    assert {what for what, error in outside["forbidden"].items() if error is not None} <= UNFAIR


def test_what_it_needs_is_possible(told: tuple[dict[str, Any], dict[str, Any]]) -> None:
    inside, _ = told
    assert {what: error for what, error in inside["needed"].items() if error is not None} == {}


def test_there_are_no_privileges_and_none_to_be_had(told: tuple[dict[str, Any], dict[str, Any]]) -> None:
    inside, _ = told
    nothing = "0" * 16
    assert inside["status"] == {"CapEff": nothing, "CapBnd": nothing, "CapAmb": nothing, "NoNewPrivs": "1", "Seccomp": "2"}
