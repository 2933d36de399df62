"""Signed commands and the real journal: a kill and a restart in between change nothing."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import msgspec

from support.brokers import Mosquitto
from support.daemons import Daemon, Fleet, topic_of
from support.signatures import signed, trusting


def states(fleet: Fleet, label: str, count: int) -> list[str]:
    """Return the error codes or statuses of a command once so many of its states have been published."""
    fleet.wait(lambda _: len(fleet.states(label)) >= count)
    return [state.get("error", {}).get("code", state["status"]) for state in fleet.states(label)]


def test_a_command_is_done_once_over_a_kill_and_never_replayed(broker: Mosquitto, fleet: Fleet, tmp_path: Path) -> None:
    made = Daemon(tmp_path, broker.url, security={"trusted_keys": str(trusting(tmp_path / "trusted"))})
    label = "pause/once"
    command = signed(label, wall=time.time())
    with made:
        fleet.wait_birth()
        fleet.send(topic_of(label), command, retain=False)
        assert states(fleet, label, 1) == ["successful"]
        made.kill()
    with made:
        fleet.send(topic_of(label), command, retain=False)
        assert set(states(fleet, label, 2)) == {"successful"}
        made.stop()
    _forget_as_a_week_later(made.state / "journal.db", label)
    fleet.seen.clear()
    with made:
        fleet.wait_birth()
        fleet.send(topic_of(label), command, retain=False)
        assert states(fleet, label, 1) == ["REPLAYED"]


def _forget_as_a_week_later(journal: Path, label: str) -> None:
    """Let the agent find its command so old that it forgets it, though the clock says that its signature is good."""
    connection = sqlite3.connect(journal)
    (state,) = connection.execute("SELECT state FROM commands WHERE label = ?", (label,)).fetchone()
    old = msgspec.json.decode(state) | {"updated_at": 0.0, "acknowledged": True, "shown_since": 0.0, "cleared": True}
    connection.execute("UPDATE commands SET state = ? WHERE label = ?", (msgspec.json.encode(old), label))
    connection.commit()
    connection.close()
