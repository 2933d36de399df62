from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.daemon.service import logs
from reconvene_agent.daemon.service.logs import FILE_BYTES, LINE_MOST, PART_BYTES, Ring


def record(text: str, level: int = logging.INFO, label: str = "", name: str = logs.NAME) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "", 0, "%s", (text,), None)
    made.created = 1767225600.0
    made.about = label
    return made


class Log:
    """A log whose last lines are kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.ring = Ring(folder / logs.FILE)

    def say(self, text: str, level: int = logging.INFO, label: str = "") -> None:
        self.ring.handle(record(text, level, label))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.ring.close()


def written(shape: str, made: logging.LogRecord, journal: bool = False) -> str:
    return logs._Formatter(shape, journal).format(made)


def texts(folder: Path, lines: int = 10_000, level: str = "debug", command: str = "") -> list[str]:
    return [line["text"] for part in logs.last(folder, lines, level, command) for line in part]


@pytest.mark.parametrize(
    ("shape", "journal", "line"),
    [
        ("text", False, "2026-01-01T00:00:00.000Z warning it is late op=ping command=7"),
        ("text", True, "<4>it is late op=ping command=7"),
        ("logfmt", False, 'time=2026-01-01T00:00:00.000Z level=warning text="it is late" op=ping command=7'),
        ("logfmt", True, '<4>time=2026-01-01T00:00:00.000Z level=warning text="it is late" op=ping command=7'),
        ("json", False, '{"time":"2026-01-01T00:00:00.000Z","level":"warning","text":"it is late","op":"ping","command":"7"}'),
    ],
)
def test_a_line_in_each_shape(shape: str, journal: bool, line: str) -> None:
    assert written(shape, record("it is late", logging.WARNING, "ping/7"), journal) == line


def test_a_job_is_named_like_its_folder_and_a_worker_as_one() -> None:
    fields = msgspec.json.decode(written("json", record("x", label="plan/1", name=f"{logs.NAME}.worker")))
    assert (fields["op"], fields["command"], fields["from"]) == ("plan", "1", "worker")
    assert len(fields["job"]) == 16
    assert "job" not in msgspec.json.decode(written("json", record("x", label="no-such-op/1")))


@given(st.text(max_size=300), st.sampled_from(["text", "logfmt", "json"]))
def test_whatever_is_said_stays_one_line(text: str, shape: str) -> None:
    assert len(written(shape, record(text)).splitlines()) == 1


def test_an_error_is_told_with_its_cause() -> None:
    try:
        raise RuntimeError("out of luck")
    except RuntimeError as error:
        made = record("it broke", logging.ERROR)
        made.exc_info = (type(error), error, error.__traceback__)
    assert written("text", made).endswith("| RuntimeError: out of luck")
    assert len(written("json", record("x" * 10 * LINE_MOST))) < 2 * LINE_MOST


def test_the_last_lines_are_kept_within_bounds(tmp_path: Path, log: Log) -> None:
    for number in range(3000):
        log.say(f"line {number} {'x' * 50}")
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= FILE_BYTES
    found = texts(tmp_path)
    assert found == [f"line {number} {'x' * 50}" for number in range(3000 - len(found), 3000)]
    assert len(found) > 500
    assert texts(tmp_path, 3) == found[-3:]


def test_they_are_kept_over_a_restart(tmp_path: Path, log: Log) -> None:
    log.say("before")
    again = Log(tmp_path)
    again.say("after")
    again.ring.close()
    assert texts(tmp_path) == ["before", "after"]


def test_lines_are_chosen_by_level_and_command(tmp_path: Path, log: Log) -> None:
    log.say("a", logging.DEBUG, "plan/1")
    log.say("b", logging.WARNING, "plan/1")
    log.say("c", logging.ERROR, "plan/2")
    log.say("d")
    assert texts(tmp_path, level="warning") == ["b", "c"]
    assert texts(tmp_path, command="1") == ["a", "b"]
    assert texts(tmp_path, 1, "warning", "1") == ["b"]
    assert texts(tmp_path, command="3") == []


def test_parts_fit_into_messages(tmp_path: Path, log: Log) -> None:
    for number in range(100):
        log.say(f"{number} {'é' * LINE_MOST}")
    parts = logs.last(tmp_path, 10_000, "debug", "")
    assert len(parts) > 1
    assert all(parts)
    assert all(len(msgspec.json.encode(part)) <= PART_BYTES + 2 for part in parts)


RUBBISH = (b"\xff\xfe", b"{}", b'{"level":3}', b'{"level":"loud"}', b"[1]", b'{"level":"info","te')


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_is_passed_over(tmp_path: Path, log: Log, rubbish: bytes) -> None:
    log.say("before")
    with (tmp_path / logs.FILE).open("ab") as file:
        file.write(rubbish + b"\n")
    log.say("after")
    assert texts(tmp_path) == ["before", "after"]


def test_a_disk_that_takes_no_line_is_no_trouble(tmp_path: Path) -> None:
    made = Log(tmp_path / "missing")
    made.say("lost")
    (tmp_path / "missing").mkdir()
    made.say("kept")
    made.ring.close()
    assert texts(tmp_path / "missing") == ["kept"]


def test_none_were_ever_kept(tmp_path: Path) -> None:
    nothing: list[list[dict[str, Any]]] = []
    assert logs.last(tmp_path, 5, "info", "") == nothing
