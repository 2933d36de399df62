"""``log_upload`` and the shapes of the log, with a real daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.daemon.service import logs
from support.brokers import Message, Mosquitto
from support.daemons import TOPICS, Daemon, Fleet
from support.waiting import until
from support.workers import honest

NOISY = """
sys.stderr.write("\\n".join(f"line {number} " + "x" * 400 for number in range(150)) + "\\n")
sys.stderr.flush()
return {}
"""


def parts(fleet: Fleet, label: str, count: int) -> list[dict[str, Any]]:
    """Return the parts of an upload once all of them are there, in the order in which they came."""

    def ours() -> list[Message]:
        return [message for message in fleet.on(TOPICS.event("log")) if message.json["command"] == label]

    until(lambda: len(ours()) >= count)
    return [message.json for message in ours()]


def test_the_last_lines_come_in_several_parts_in_order(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    with Daemon(tmp_path, broker.url, honest(tmp_path / "python", NOISY)):
        fleet.wait_birth()
        fleet.order("plan/noisy")
        fleet.wait_end("plan/noisy")
        fleet.order("log_upload/1", {"lines": 140, "command": "noisy"})
        last = fleet.wait_end("log_upload/1")
        assert last["result"]["lines"] == 140
        count = last["result"]["parts"]
        assert count > 1
        found = parts(fleet, "log_upload/1", count)
        assert [(part["part"], part["parts"]) for part in found] == [(number, count) for number in range(1, count + 1)]
        assert [part["seq"] for part in found] == sorted(part["seq"] for part in found)
        lines = [line for part in found for line in part["lines"]]
        assert len(lines) == 140
        assert {line["op"] for line in lines} == {"plan"}
        assert len({line["job"] for line in lines}) == 1
        said = [line["text"].split()[1] for line in lines if line.get("from") == "worker"]
        assert said == [str(number) for number in range(150)][-len(said) :], "none is missing"
        assert lines[-1]["text"] == "plan/noisy successful"
        assert all(len(message.payload) < 2 * logs.PART_BYTES for message in fleet.on(TOPICS.event("log")))
        fleet.order("log_upload/2", {"level": "warning", "command": "noisy"})
        assert fleet.wait_end("log_upload/2")["result"] == {"lines": 0, "parts": 0}


def test_what_was_said_before_a_crash_is_there_without_any_secret(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    secret = tmp_path / "password"
    secret.write_text("a-word-not-to-be-told\n")
    secret.chmod(0o600)
    made = Daemon(tmp_path, broker.url, broker={"username": "board", "password_file": str(secret)}, agent={"log_level": "debug"})
    with made as daemon:
        fleet.wait_birth()
        daemon.kill()
        daemon.start()
        fleet.order("config_update/1", {"set": {"telemetry.interval_s": 5}})
        fleet.wait_end("config_update/1")
        fleet.order("log_upload/1", {"lines": 10_000})
        result = fleet.wait_end("log_upload/1")["result"]
        (part,) = parts(fleet, "log_upload/1", result["parts"])
        assert len([line for line in part["lines"] if line["text"].startswith("connected to")]) == 3
        everything = b"".join(message.payload for message in fleet.seen) + daemon.log.encode()
        assert secret.read_text().strip().encode() not in everything


@pytest.mark.parametrize("shape", ["logfmt", "json"])
def test_every_line_of_a_job_carries_its_ids(tmp_path: Path, broker: Mosquitto, fleet: Fleet, shape: str) -> None:
    made = Daemon(tmp_path, broker.url, honest(tmp_path / "python", NOISY), agent={"log_format": shape})
    with made as daemon:
        fleet.wait_birth()
        fleet.order("plan/7")
        fleet.wait_end("plan/7")

        def ours() -> list[str]:
            return [line for line in daemon.log.splitlines() if "plan/7" in line or "line 1 " in line]

        until(lambda: len(ours()) >= 3)
        for line in ours():
            if shape == "json":
                fields = msgspec.json.decode(line)
                assert (fields["op"], fields["command"], len(fields["job"])) == ("plan", "7", 16)
            else:
                assert " op=plan command=7 job=" in line
