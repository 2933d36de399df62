"""The command line as a process of its own: run to its end, or listened to while it runs; it must leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil
from msgspec import Struct

from support.waiting import until

PROGRAM = (sys.executable, "-m", "reconvene_agent.cli.main")
DEADLINE_S = 90.0
ERROR = "reconvene-agent: error: "
_MARK = "STARTED_BY_TEST"
# What would let the surroundings decide how a command behaves.
_FOREIGN = (
    *("JOURNAL_STREAM", "NOTIFY_SOCKET", "PYTHONUNBUFFERED", "PYTHONIOENCODING", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"),
    *("LINES", "COLUMNS"),
)


class Ended(Struct, frozen=True):
    """How a command ended, and all that it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the one JSON document on stdout."""
        assert self.out.count("\n") == 1, f"not one line: {self.out!r} {self.err!r}"
        document: dict[str, Any] = msgspec.json.decode(self.out)
        return document

    @property
    def complaint(self) -> str:
        """Return the one line that tells the error; nobody gets to see a traceback."""
        assert "Traceback" not in self.err
        assert "defect" not in self.err
        (line,) = (line for line in self.err.splitlines() if line.startswith(ERROR))
        assert self.err.endswith(line + "\n")
        return line.removeprefix(ERROR)

    def error(self, code: str) -> dict[str, Any]:
        """Return the document of a failure, after checking that it tells this code, and the same as the line on stderr."""
        document = self.document
        error = document["error"]
        assert set(error) == {"code", "retryable", "detail"}
        assert (error["code"], error["detail"]) == (code, self.complaint)
        return document


Cli = Callable[..., Ended]
"""Runs a command in the test's own process."""


FleetCli = Callable[..., Ended]
"""Runs an action of ``fleet`` at the test's broker, in the test's own process."""

SOON = ("--settle", "0.3")
"""For ``fleet``: brokers on this machine need not be waited for long."""


class Disturbed(Struct, frozen=True):
    """One run in three parts: stopped by Ctrl-C after its first epoch, by SIGTERM after its second, then left alone."""

    first: Ended
    second: Ended
    third: Ended
    out: Path
    left: list[str]
    """What lay in the output folder after the first part."""


def surroundings(mark: str = "", **more: str) -> dict[str, str]:
    """Return the environment for a command: no configuration but the one named to it."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN and not name.startswith("RECONVENE")}
    return {**kept, "RECONVENE_AGENT_CONFIG": os.devnull, _MARK: mark, **more}


class Running:
    """A command that runs: what it writes is read as it comes, or goes to the descriptor ``stdout`` if one is given."""

    def __init__(self, *words: object, stdout: int = subprocess.PIPE, **environment: str) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=surroundings(self._mark, **environment),
        )
        self._news = threading.Condition()
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    self._lines[name].append(line)
                    self._news.notify_all()

    def wait_line(self, text: str, stream: str = "err", seconds: float = DEADLINE_S) -> None:
        """Wait until it has written a line with ``text``."""
        with self._news:
            found = self._news.wait_for(lambda: any(text in line for line in self._lines[stream]), seconds)
        assert found, f"{text!r} was not said within {seconds:g} s: {self._lines}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """Return every process that it has started and that still lives, and itself."""
        return [process for process in psutil.process_iter() if self._started(process)]

    def _started(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == self._mark
        except (psutil.Error, OSError):
            return False

    def end(self, seconds: float = DEADLINE_S) -> Ended:
        """Wait for its end; nothing that it started may live on."""
        try:
            code = self.process.wait(seconds)
            for reader in self._readers:
                reader.join(10)
            until(lambda: not self.family(), 5)
        finally:
            self.kill()
        return Ended(code, "".join(self._lines["out"]), "".join(self._lines["err"]))

    def kill(self) -> None:
        for process in self.family():
            process.kill()
        self.process.wait(10)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def command(*words: object, stdout: int = subprocess.PIPE, **environment: str) -> Ended:
    """Run a command to its end."""
    with Running(*words, stdout=stdout, **environment) as running:
        return running.end()


def configured(folder: Path, **sections: dict[str, Any]) -> Path:
    """Write a configuration file below ``folder`` and return it."""
    path = folder / "config.toml"
    path.write_bytes(msgspec.toml.encode(sections))
    return path
