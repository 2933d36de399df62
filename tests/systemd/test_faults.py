"""What goes wrong with a service on a board, done to it; systemd and the agent see to it that it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.brokers import Mosquitto
from support.daemons import TOPICS, Fleet
from support.guests import STATE, UNIT, Guest
from support.waiting import until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(400)]


def other_process(guest: Guest, before: str) -> str:
    """Wait until the service is active as another process than ``before``; return that."""

    def found() -> str:
        pid = guest.unit("MainPID")
        return pid if pid not in ("0", before) and guest.unit("ActiveState") == "active" else ""

    return until(found, 30)


@pytest.fixture
def hasty(guest: Guest) -> Iterator[Guest]:
    """Return the guest with the service running, whose watchdog and restarts take little time."""
    guest.drop_in("hasty", "[Service]\nWatchdogSec=2\nRestartSec=100ms\nTimeoutAbortSec=1\n")
    guest.run("systemctl", "reset-failed", UNIT, check=False)
    guest.run("systemctl", "restart", UNIT)
    yield guest
    guest.drop_in("hasty", "")
    guest.run("systemctl", "restart", UNIT)


def test_an_agent_that_hangs_is_started_again_by_the_watchdog(hasty: Guest) -> None:
    before = hasty.unit("MainPID")
    hasty.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT)
    assert other_process(hasty, before)
    assert "Watchdog timeout" in hasty.journal()
    assert json.loads(hasty.run("reconvene-agent", "status", "--json", check=False))["state"] == "idle"


def test_an_agent_that_works_keeps_the_watchdog_quiet(hasty: Guest) -> None:
    """Its loop has nothing to do but to say so."""
    before, restarts = hasty.unit("MainPID"), hasty.unit("NRestarts")
    fed = int(hasty.unit("WatchdogTimestampMonotonic"))
    until(lambda: int(hasty.unit("WatchdogTimestampMonotonic")) > fed + 3_000_000, 30)
    assert (hasty.unit("MainPID"), hasty.unit("NRestarts")) == (before, restarts)


def test_an_agent_that_is_killed_is_started_again(hasty: Guest) -> None:
    before = hasty.unit("MainPID")
    hasty.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    assert other_process(hasty, before)


def test_a_restart_on_request_is_the_same_process_for_systemd(service: Guest, broker: Mosquitto) -> None:
    before, restarts = service.unit("MainPID"), service.unit("NRestarts")
    with Fleet(broker.port) as fleet:
        fleet.wait_birth()
        assert fleet.wait_order("restart/1")["status"] == "successful"
        assert fleet.ping("after")["state"] == "idle"
    assert (service.unit("MainPID"), service.unit("NRestarts"), service.unit("ActiveState")) == (before, restarts, "active")


def test_a_full_disk_is_an_alarm_and_no_end(guest: Guest, broker: Mosquitto) -> None:
    guest.run("systemctl", "stop", UNIT)
    guest.run("mount", "-t", "tmpfs", "-o", "size=24m,mode=0750", "tmpfs", STATE)
    try:
        guest.run("systemctl", "start", UNIT)
        before = guest.unit("MainPID")
        with Fleet(broker.port) as fleet:
            fleet.wait_birth()
            alarm, seen = TOPICS.alarm("disk_nearly_full"), len(fleet.seen)
            guest.run("dd", "if=/dev/zero", f"of={STATE}/ballast", "bs=4k", check=False)
            raised = fleet.wait(lambda message: message.topic == alarm and message.payload, after=seen)
            assert "nearly full" in raised.json["text"]
            fleet.order("specialize/full", filler="x" * 50_000)
            assert fleet.wait_end("specialize/full")["error"]["code"] == "NO_DISK"
            seen = len(fleet.seen)
            guest.run("rm", f"{STATE}/ballast")
            assert not fleet.wait_topic(alarm, after=seen).payload
            assert fleet.ping("empty")["state"] == "idle"
        assert (guest.unit("MainPID"), guest.unit("ActiveState")) == (before, "active")
    finally:
        guest.run("systemctl", "stop", UNIT)
        guest.run("umount", STATE)
