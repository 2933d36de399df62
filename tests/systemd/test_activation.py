"""The service as systemd runs it: it is up at once, though there is no broker, and answers who may ask."""

from __future__ import annotations

import calendar
import json
import re
import time

import pytest

from support.brokers import Mosquitto
from support.daemons import TOPICS, Fleet
from support.guests import CHECKOUT, READY_S, UNIT, Guest
from support.waiting import until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(400)]


def test_it_is_up_soon_after_boot_though_there_is_no_broker(guest: Guest) -> None:
    assert until(lambda: guest.unit("ActiveState") == "active", 30)
    assert guest.unit("NRestarts") == "0"
    assert guest.run("systemctl", "is-system-running") == "running"
    assert json.loads(guest.run("reconvene-agent", "status", "--json", check=False))["broker"]["connected"] is False
    assert guest.soonest_ready_s() < READY_S


def test_root_and_the_group_may_ask_and_nobody_else(service: Guest) -> None:
    for user in ("", "member"):
        status = json.loads(service.run("reconvene-agent", "status", "--json", user=user, check=False))
        assert (status["device_id"], status["state"]) == ("board-1", "idle")
    refused = service.start("reconvene-agent", "status", "--json", user="other")
    said, _ = refused.communicate(timeout=30)
    assert refused.returncode not in (0, 1)
    assert "denied" in said
    socket = service.run("stat", "--format=%a %U %G", "/run/reconvene-agent/control.sock")
    assert socket == "660 reconvene-agent reconvene-agent"


def test_the_sandbox_is_tight(service: Guest) -> None:
    """What systemd itself makes of the unit, from 0 (safe) to 10."""
    assert exposure(service) <= 1.5
    service.drop_in("jetson", (CHECKOUT / "systemd/jetson.conf").read_text())
    try:
        assert exposure(service) <= 2.0
        service.run("systemctl", "restart", UNIT)
        assert service.unit("ActiveState") == "active"
    finally:
        service.drop_in("jetson", "")
        service.run("systemctl", "restart", UNIT)


def exposure(guest: Guest) -> float:
    told = guest.run("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])


def test_systemd_finds_no_mistake_in_what_it_is_given(service: Guest) -> None:
    assert service.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}", "/etc/systemd/system/reconvene.slice") == ""
    assert not [
        line for line in service.run("journalctl", "-b", "-t", "systemd", "-o", "cat").splitlines() if "Unknown key" in line
    ]


def test_the_journal_holds_what_programs_can_read(service: Guest) -> None:
    entries = [json.loads(line) for line in service.run("journalctl", "-u", UNIT, "-o", "json").splitlines()]
    ours = [entry for entry in entries if entry.get("_SYSTEMD_UNIT") == UNIT]
    assert ours
    lines = [json.loads(entry["MESSAGE"]) for entry in ours]
    assert any("board-1" in line["text"] for line in lines)
    level = {"info": "6", "warning": "4", "error": "3"}
    assert all(entry["PRIORITY"] == level[line["level"]] for entry, line in zip(ours, lines, strict=True))


def test_what_waits_for_a_broker_goes_when_there_is_one(service: Guest, absent: Mosquitto) -> None:
    """The broker keeps away at first; from here on it is there."""
    service.run("systemctl", "restart", UNIT)
    said = json.loads(service.run("reconvene-agent", "status", "--json", check=False))
    assert (said["state"], said["broker"]["connected"]) == ("idle", False)
    begun = time.time()
    absent.start()
    with Fleet(absent.port) as fleet:
        fleet.wait_birth()
        waited = fleet.wait_topic(TOPICS.measurement("system"), 30).json
        assert calendar.timegm(time.strptime(waited["time"][:19], "%Y-%m-%dT%H:%M:%S")) < begun
        assert fleet.ping("first")["state"] == "idle"
