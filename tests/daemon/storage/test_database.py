from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconvene_agent.core.errors import AgentError
from reconvene_agent.daemon.storage.database import DatabaseFullError, open_database, writing
from support.disks import fill, tiny_disk

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID"


@contextmanager
def opened(path: Path, durable: bool = True) -> Iterator[sqlite3.Connection]:
    connection = open_database(path, SCHEMA, durable)
    try:
        yield connection
    finally:
        connection.close()


def put(connection: sqlite3.Connection, name: str, size: int = 10) -> None:
    with writing(connection):
        connection.execute("INSERT OR REPLACE INTO things VALUES (?, ?)", (name, b"x" * size))


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY name")]


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_transactions_are_synced_where_it_matters(tmp_path: Path, durable: bool, level: int) -> None:
    with opened(tmp_path / "x.db", durable) as connection:
        assert pragma(connection, "synchronous") == level
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "cache_size") == -128


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    with opened(tmp_path / "x.db") as connection:
        put(connection, "a")
    with opened(tmp_path / "x.db") as connection:
        assert names(connection) == ["a"]


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    def two(connection: sqlite3.Connection) -> None:
        with writing(connection):
            connection.execute("INSERT INTO things VALUES ('a', '')")
            connection.execute("INSERT INTO things VALUES ('a', '')")

    with opened(tmp_path / "x.db") as connection:
        with pytest.raises(sqlite3.IntegrityError):
            two(connection)
        assert names(connection) == []
        put(connection, "b")
        assert names(connection) == ["b"]


def test_any_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        with writing(connection):
            connection.execute("INSERT INTO things VALUES ('a', '')")
            raise KeyError("in the middle")

    with opened(tmp_path / "x.db") as connection:
        with pytest.raises(KeyError):
            half(connection)
        assert names(connection) == []
        put(connection, "b")
        assert names(connection) == ["b"]


def overwrite_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"this is no database any more" * 40)


def overwrite_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 8192)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


@pytest.mark.parametrize("damage", [overwrite_head, overwrite_middle, truncate])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.db"
    with opened(path) as connection:
        for number in range(100):
            put(connection, f"name {number}", 1000)
    damage(path)
    damaged = path.read_bytes()
    with opened(path) as connection:
        assert names(connection) == []
        put(connection, "new")
    assert (tmp_path / "x.db.broken").read_bytes() == damaged
    assert "x.db is damaged" in caplog.text
    with opened(path) as connection:
        assert names(connection) == ["new"]


def test_rubbish_in_the_place_of_its_log_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with opened(path) as connection:
        put(connection, "a")
    path.with_name("x.db-wal").write_bytes(b"rubbish" * 1000)
    with opened(path) as connection:
        assert names(connection) == ["a"]


def test_an_unusable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(AgentError, match=r"x\.db cannot be opened: "):
        open_database(tmp_path / "x.db", SCHEMA, True)


def test_no_room_to_begin_with(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        with pytest.raises(DatabaseFullError):
            open_database(disk / "x.db", SCHEMA, True)


def test_on_a_full_disk_nothing_is_lost_and_with_room_it_goes_on(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        with opened(disk / "x.db") as connection:
            put(connection, "before")
            ballast = fill(disk)
            for number in range(3):
                with pytest.raises(DatabaseFullError):
                    put(connection, f"refused {number}", 200_000)
            assert names(connection) == ["before"]
            ballast.unlink()
            put(connection, "after", 50_000)
            assert names(connection) == ["after", "before"]
        with opened(disk / "x.db") as connection:
            assert names(connection) == ["after", "before"]


def test_what_was_there_before_the_disk_was_full_survives_a_crash(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        with opened(disk / "x.db") as connection:
            put(connection, "before")
            fill(disk)
            with pytest.raises(DatabaseFullError):
                put(connection, "refused", 200_000)
            for name in ("x.db", "x.db-wal"):
                (tmp_path / name).write_bytes((disk / name).read_bytes())  # what a power cut leaves
        with opened(tmp_path / "x.db") as connection:
            assert names(connection) == ["before"]
