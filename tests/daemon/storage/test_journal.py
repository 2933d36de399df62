from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command, Failure, Status, Step, advance
from reconvene_agent.daemon.security.trust import Memory, Nonce
from reconvene_agent.daemon.storage.database import DatabaseFullError
from reconvene_agent.daemon.storage.journal import Journal
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


def test_a_forgotten_command_leaves_its_nonce_until_that_is_forgotten_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    assert journal.memory() == Memory(floor=0.0, begun=0.0)
    for number in (1, 2, 3):
        journal.save(command(number))
        journal.forget(command(number), Nonce(f"key:{number}", WALL + number) if number > 1 else None)
    for _ in range(2):
        assert journal.load() == []
        assert journal.memory() == Memory({"key:2": WALL + 2, "key:3": WALL + 3}, 0.0, 0.0)
        journal.close()
        journal = Journal(tmp_path / "journal.db")
    journal.forget_nonces(WALL + 2)
    for _ in range(2):
        assert journal.memory() == Memory({"key:3": WALL + 3}, WALL + 2, 0.0)
        journal.close()
        journal = Journal(tmp_path / "journal.db")
    journal.close()


def test_a_journal_in_place_of_a_damaged_one_remembers_since_when(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"rubbish" * 1000)
    os.utime(path, (WALL, 4e9))
    journal = Journal(path)
    for _ in range(2):
        assert journal.memory().begun == 4e9, "of the clock and the damaged file the later time"
        journal.close()
        path.with_name("journal.db.broken").unlink(missing_ok=True)
        journal = Journal(path)
    journal.close()


def test_a_journal_of_an_earlier_version_gets_room_for_nonces(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "journal.db")
    old.execute("CREATE TABLE commands (label TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID")
    old.execute("INSERT INTO commands VALUES (?, ?)", ("plan/1", msgspec.json.encode(command())))
    old.commit()
    old.close()
    journal = Journal(tmp_path / "journal.db")
    assert journal.load() == [command()]
    assert journal.memory() == Memory(floor=0.0, begun=0.0)
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
