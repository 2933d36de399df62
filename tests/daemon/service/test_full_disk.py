from __future__ import annotations

from pathlib import Path
from typing import Any

from support.brokers import Mosquitto
from support.daemons import TOPICS, Daemon, Fleet
from support.disks import fill, tiny_disk
from support.waiting import until
from support.workers import WORK, honest


def test_a_full_disk_is_answered_and_survived(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> None:
    go.touch()
    (tmp_path / "state").mkdir()
    with tiny_disk(tmp_path / "state", "24m") as disk:
        python = honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}")
        with Daemon(tmp_path, broker.url, python, telemetry={"interval_s": 1.0}) as daemon:
            fleet.wait_birth()
            ballast = fill(disk)
            alarm = TOPICS.alarm("disk_nearly_full")
            raised = fleet.wait(lambda message: message.topic == alarm and message.payload)
            assert raised.json["text"] == f"the disk of {daemon.state} is nearly full: free at least 1.8 MiB of it"
            fleet.order("specialize/1", filler="x" * 50_000)
            refused: Any = fleet.wait_end("specialize/1")
            assert (refused["error"]["code"], refused["error"]["retryable"]) == ("NO_DISK", True)
            assert fleet.ping("while-full")["state"] == "idle"
            assert daemon.status()["state"] == "idle"
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - (8 << 20))
            fleet.order("specialize/2")
            refused = fleet.wait_end("specialize/2")
            assert refused["error"]["code"] == "NO_DISK"
            assert "at least 16 are needed" in refused["reason"]
            seen = len(fleet.seen)
            ballast.unlink()
            fleet.wait_topic(alarm, after=seen)
            fleet.order("specialize/1", filler="x" * 50_000)
            assert fleet.wait_status("specialize/1", "successful", "failed", after=seen)["status"] == "successful"
            assert daemon.stop() == 0


def test_a_disk_that_fills_during_a_run_loses_nothing(tmp_path: Path, broker: Mosquitto, fleet: Fleet, go: Path) -> None:
    (tmp_path / "state").mkdir()
    with tiny_disk(tmp_path / "state", "24m") as disk:
        made = Daemon(tmp_path, broker.url, honest(tmp_path / "python", f"GO = {str(go)!r}\n{WORK}"))
        with made as daemon:
            fleet.wait_birth()
            fleet.order("specialize/1", filler="x" * 50_000)
            daemon.wait_step("train")
            ballast = fill(disk)
            go.touch()
            assert fleet.wait_end("specialize/1")["status"] == "successful"
            ballast.unlink()
            fleet.ping("after")
            assert daemon.stop() == 0
            daemon.start()
            seen = len(fleet.seen)
            fleet.order("specialize/1", filler="x" * 50_000)
            assert fleet.wait_status("specialize/1", "successful", "failed", "executing", after=seen)["status"] == "successful"


def test_what_finds_no_room_in_the_spool_is_counted_and_told(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    (tmp_path / "state").mkdir()
    with tiny_disk(tmp_path / "state", "24m") as disk:
        made = Daemon(tmp_path, broker.url, telemetry={"interval_s": 1.0, "spool_min_free_bytes": 0})
        with made as daemon:
            before = fleet.wait_topic(TOPICS.measurement("system")).json
            ballast = fill(disk)
            until(lambda: "records that waited for the broker were dropped, 1 so far" in daemon.log, 20)
            ballast.unlink()
            counted: Any = fleet.wait(lambda message: b'"dropped_total"' in message.payload).json
            assert counted["dropped_total"] >= 1
            assert counted["seq"] > before["seq"]
            assert daemon.status()["state"] == "idle"
