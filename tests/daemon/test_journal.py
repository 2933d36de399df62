from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command, Failure, Status, Step, advance
from reconvene_agent.daemon.database import DatabaseFullError
from reconvene_agent.daemon.journal import Journal
from support.agents import WALL
from support.disks import fill, tiny_disk
from support.values import NASTY_JSON


def command(number: int = 1, **request: object) -> Command:
    return Command("plan", str(number), request, "d", WALL, WALL, Status.SCHEDULED, rev=1)


def test_commands_survive_a_restart(tmp_path: Path) -> None:
    full = msgspec.structs.replace(
        command(2, args={"x": [1, None, 2.5]}, other="ä"),
        status=Status.FAILED,
        step=Step.TRAIN,
        progress=0.5,
        attempt=2,
        result={"a": {}},
        error=Failure.of(ErrorCode.NO_DATA, "none"),
        acknowledged=True,
        cleared=True,
    )
    journal = Journal(tmp_path / "journal.db")
    journal.save(command(1))
    journal.save(full)
    journal.close()
    journal = Journal(tmp_path / "journal.db")
    assert sorted(journal.load(), key=lambda found: found.id) == [command(1), full]
    journal.close()


def test_each_command_has_its_newest_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.save(command())
    newer = advance(command(), WALL + 1, Status.EXECUTING)
    journal.save(newer)
    assert journal.load() == [newer]
    journal.forget(newer)
    journal.forget(newer)
    assert journal.load() == []
    journal.close()


def test_what_was_saved_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    """A copy of the files, taken while the journal is in use, is what a power cut leaves."""
    journal = Journal(tmp_path / "journal.db")
    for number in range(20):
        journal.save(command(number))
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        for path in tmp_path.glob("journal.db*"):
            (copy / path.name).write_bytes(path.read_bytes())
        left = Journal(copy / "journal.db")
        assert len(left.load()) == number + 1
        left.close()
    journal.close()


@pytest.mark.parametrize("state", [*NASTY_JSON.values(), b"{}", b'{"op":1}'])
def test_a_state_that_cannot_be_read_is_left_out(tmp_path: Path, state: bytes) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.save(command(1))
    journal.save(command(2))
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("UPDATE commands SET state = ? WHERE label = 'plan/1'", (state,))
    connection.close()
    journal = Journal(tmp_path / "journal.db")
    assert journal.load() == [command(2)]
    journal.close()


def test_without_room_for_the_journal_nothing_begins(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        with pytest.raises(AgentError, match="no space left") as caught:
            Journal(disk / "journal.db")
        assert caught.value.code is ErrorCode.NO_DISK


def test_a_full_disk_refuses_new_states_and_keeps_the_old(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        journal = Journal(disk / "journal.db")
        journal.save(command(1))
        ballast = fill(disk)
        big = command(2, filler="x" * 100_000)
        with pytest.raises(DatabaseFullError):
            journal.save(big)
        assert journal.load() == [command(1)]
        ballast.unlink()
        journal.save(command(3))
        journal.close()
        journal = Journal(disk / "journal.db")
        assert sorted(found.id for found in journal.load()) == ["1", "3"]
        journal.close()
