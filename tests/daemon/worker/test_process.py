from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from reconvene_agent.core.budget import Budget
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import Done, Failed, PlanRequest, Progress, Ready, Runtime, Suspended
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from reconvene_agent.daemon.worker import process as worker_process
from reconvene_agent.daemon.worker.endings import explain
from reconvene_agent.daemon.worker.process import WorkerProcess
from support.waiting import until
from support.workers import ROGUES, honest, rogue

REQUEST = PlanRequest("/b", Budget(), Runtime(1, 1, ("CPUExecutionProvider",), 32), MethodOptions(), (0.5,), (1.0,), 32)


class Talk:
    """A worker that was started, and all that comes from it."""

    def __init__(self, python: str, threads: int = 1) -> None:
        self.events: queue.SimpleQueue[WorkerSaid | WorkerEnded] = queue.SimpleQueue()
        self.log: list[str] = []
        self.said: list[Any] = []
        self.process = WorkerProcess("k", REQUEST, self.events.put, self.log.append, python, threads)

    def next(self, seconds: float = 20.0) -> Any:
        """Return what the worker says next, or its end."""
        event = self.events.get(timeout=seconds)
        assert event.key == "k"
        if isinstance(event, WorkerEnded):
            return event
        self.said.append(event.message)
        return event.message

    def end(self, seconds: float = 20.0) -> WorkerEnded:
        """Return the worker's end; what it says before is in ``said``."""
        while not isinstance(event := self.next(seconds), WorkerEnded):
            pass
        assert not psutil.pid_exists(self.process.pid), "nothing of it is left"
        return event


Start = Callable[..., Talk]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a rogue with this body, or an honest worker with this operation."""
    before = set(threading.enumerate())
    talks: list[Talk] = []

    def begin(body: str, kind: Callable[[Path, str], str] = rogue, **options: Any) -> Talk:
        talks.append(Talk(kind(tmp_path / f"worker-{len(talks)}", body), **options))
        return talks[-1]

    yield begin
    for talk in talks:
        talk.process.kill()
    until(lambda: set(threading.enumerate()) <= before)


# --- an honest one -----------------------------------------------------------------------------------------------------------


def test_an_honest_worker_shakes_hands_works_and_leaves(start: Start) -> None:
    talk = start("channel.progress(Step.PLAN, 0.5, 'half')\nreturn {'bundle': request.bundle}", honest)
    end = talk.end()
    ready, progress, done = talk.said
    assert isinstance(ready, Ready)
    assert ready.pid == talk.process.pid
    assert progress == Progress("plan", 0.5, "half")  # type: ignore[arg-type]
    assert done == Done({"bundle": "/b"})
    assert (end.returncode, end.broken, end.out_of_memory, end.stderr) == (0, "", False, "")


@pytest.mark.parametrize(
    ("mode", "answer"), [("cancel", Failed(ErrorCode.CANCELED, "canceled on request")), ("suspend", Suspended())]
)
def test_it_stops_when_it_is_asked(start: Start, mode: Any, answer: Any) -> None:
    talk = start("channel.progress(Step.TRAIN, 0.0)\nwait_for('/never', channel)", honest)
    assert isinstance(talk.next(), Ready)
    assert isinstance(talk.next(), Progress)
    talk.process.ask_to_stop(mode)
    assert talk.end().returncode == 0
    assert talk.said[-1] == answer


def test_its_failure_keeps_its_code(start: Start) -> None:
    talk = start("raise AgentError('no data', ErrorCode.NO_DATA)", honest)
    talk.end()
    assert talk.said[-1] == Failed(ErrorCode.NO_DATA, "no data")


def test_prints_do_no_harm_and_are_logged(start: Start) -> None:
    talk = start("print('hello'); print('x' * 100_000)\nreturn {}", honest)
    end = talk.end()
    assert talk.said[-1] == Done({})
    assert talk.log[0] == "hello"
    assert len(talk.log[1]) == worker_process._LineLimiter.MAX_LENGTH
    assert end.stderr.startswith("x")


def test_what_a_rogue_prints_on_stdout_is_lost(start: Start) -> None:
    talk = start("ready(); hear(); print('{\"type\":\"done\"}', flush=True); say('done', result={})")
    assert talk.end().broken == ""
    assert talk.said[-1] == Done({})


def test_its_surroundings(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "5")
    monkeypatch.setenv("ANYTHING_ELSE", "kept")
    talk = start("ready(); hear(); say('done', result={'environment': dict(os.environ), 'cwd': os.getcwd()})", threads=3)
    talk.end()
    environment = talk.said[-1].result["environment"]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & environment.keys()
    assert (environment["OMP_NUM_THREADS"], environment["PYTHONSAFEPATH"]) == ("3", "1")
    assert environment["GOMP_SPINCOUNT"] == "10000"
    assert "tcache_count=0" in environment["GLIBC_TUNABLES"]
    assert environment["ANYTHING_ELSE"] == "kept"
    assert talk.said[-1].result["cwd"] == "/"


def test_it_inherits_no_descriptor_but_its_channel(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        talk = start("ready(); hear(); say('done', result={'open': sorted(map(int, os.listdir('/proc/self/fd')))})")
        talk.end()
    assert len(talk.said[-1].result["open"]) <= 5, "three standard ones, the channel, and the folder being listed"


# --- rogues ------------------------------------------------------------------------------------------------------------------

VERDICTS: dict[str, tuple[ErrorCode, str]] = {
    "leaves without a word": (ErrorCode.INTERNAL, "left with exit code 0 and no result"),
    "leaves after the handshake": (ErrorCode.INTERNAL, "left with exit code 0 and no result"),
    "exits 3": (ErrorCode.INTERNAL, "left with exit code 3 and no result: out of luck"),
    "segfaults": (ErrorCode.INTERNAL, "crashed with SIGSEGV"),
    "aborts": (ErrorCode.INTERNAL, "crashed with SIGABRT"),
    "is killed": (ErrorCode.INTERRUPTED, "was ended by SIGKILL from outside"),
    "greets in another version": (ErrorCode.INTERNAL, "it did not greet with protocol 1"),
    "does not greet": (ErrorCode.INTERNAL, "it did not greet with protocol 1"),
    "says rubbish": (ErrorCode.INTERNAL, "it sent b'rubbish\\n' instead of a message"),
    "says bytes": (ErrorCode.INTERNAL, "instead of a message"),
    "says something deep": (ErrorCode.INTERNAL, "instead of a message"),
    "says a line without an end": (ErrorCode.INTERNAL, "instead of a message"),
    "stops in the middle of a line": (ErrorCode.INTERNAL, "instead of a message"),
    "answers in a line over the limit": (ErrorCode.INTERNAL, "instead of a message"),
}


@pytest.mark.parametrize("name", ROGUES)
def test_a_rogue_is_ended_and_its_end_explained(start: Start, name: str) -> None:
    end = start(ROGUES[name]).end()
    code, detail = explain(end, "")
    assert code is VERDICTS[name][0]
    assert VERDICTS[name][1] in detail
    assert len(detail) < 500


def test_who_closes_its_channel_and_stays_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "LINGER_S", 0.2)
    end = start("ready(); hear(); lines.close(); channel.close(); hang()").end()
    assert (end.returncode, end.broken) == (-signal.SIGKILL, "it closed its channel and stayed")


@pytest.mark.parametrize("body", ["hang()", "ready(); hear(); hang()"])
def test_who_hangs_can_be_ended(start: Start, body: str) -> None:
    talk = start(body + "\n")
    if "ready" in body:
        assert isinstance(talk.next(), Ready)
    talk.process.terminate()
    end = talk.end()
    assert (end.returncode, end.broken) == (-signal.SIGTERM, "")


def test_who_ignores_sigterm_can_be_killed(start: Start) -> None:
    talk = start("signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); hear(); hang()")
    assert isinstance(talk.next(), Ready)
    talk.process.terminate()
    assert psutil.pid_exists(talk.process.pid)
    talk.process.kill()
    assert talk.end().returncode == -signal.SIGKILL


def test_a_flood_on_stderr_is_read_bounded_and_does_no_harm(start: Start) -> None:
    before = psutil.Process().memory_info().rss
    talk = start("ready(); hear()\nfor _ in range(50): os.write(2, b'flood\\n' * 174763)\nsay('done', result={})")
    end = talk.end(60)
    assert talk.said[-1] == Done({})
    assert len(end.stderr) == worker_process.STDERR_TAIL
    assert len(talk.log) == worker_process._LineLimiter.MAX_LINES + 1
    assert talk.log[-1].endswith("more lines, not shown")
    assert psutil.Process().memory_info().rss - before < 20e6


def test_one_endless_line_on_stderr_is_bounded_too(start: Start) -> None:
    talk = start("ready(); hear()\nfor _ in range(20): os.write(2, b'x' * 1000000)\nsay('done', result={})")
    talk.end()
    assert [len(line) for line in talk.log] == [worker_process._LineLimiter.MAX_LENGTH]


def test_a_grandchild_goes_with_it(start: Start, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    body = f"ready(); hear()\nif os.fork() == 0:\n    open('{note}', 'w').write(str(os.getpid())); hang()\n"
    body += f"while not os.path.exists('{note}') or not open('{note}').read(): time.sleep(0.01)\nsay('done', result={{}})"
    begun = time.monotonic()
    talk = start(body)
    assert talk.end().returncode == 0
    assert talk.said[-1] == Done({})
    assert time.monotonic() - begun < 5
    until(lambda: not psutil.pid_exists(int(note.read_text())) or psutil.Process(int(note.read_text())).status() == "zombie")


def test_a_grandchild_that_got_away_does_not_hold_up_the_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "DRAIN_S", 0.2)
    note = tmp_path / "grandchild"
    body = f"ready(); hear()\nif os.fork() == 0:\n    os.setsid(); open('{note}', 'w').write(str(os.getpid())); hang()\n"
    body += f"while not os.path.exists('{note}') or not open('{note}').read(): time.sleep(0.01)\nsay('done', result={{}})"
    threads = threading.active_count()
    talk = start(body)
    try:
        assert talk.end().returncode == 0
        assert talk.said[-1] == Done({})
        until(lambda: threading.active_count() <= threads + 1, 5)
    finally:
        os.kill(int(note.read_text()), signal.SIGKILL)


def test_a_missing_interpreter_is_one_line() -> None:
    with pytest.raises(AgentError, match="the worker cannot be started: /no/such/python: No such file or directory"):
        Talk("/no/such/python")


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("not a program")
    with pytest.raises(AgentError, match=r"the worker cannot be started: .*: Permission denied"):
        Talk(str(tmp_path / "python"))
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(AgentError, match=r"the worker cannot be started: .*: Exec format error"):
        Talk(str(tmp_path / "python"))


def test_asking_or_ending_one_that_has_left_does_nothing(start: Start) -> None:
    talk = start("sys.exit(0)")
    talk.end()
    talk.process.ask_to_stop("cancel")
    talk.process.terminate()
    talk.process.kill()


def test_the_kernels_own_kill_is_told_apart(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr(worker_process.oom, "kills", lambda: next(counts))
    assert start(ROGUES["is killed"]).end().out_of_memory


def test_one_that_is_ended_is_gone_at_once(start: Start) -> None:
    talk = start("ready(); hear(); signal.signal(signal.SIGTERM, signal.SIG_IGN); hang()")
    assert isinstance(talk.next(), Ready)
    talk.process.end()
    assert not psutil.pid_exists(talk.process.pid)
    assert talk.end().returncode == -signal.SIGKILL
