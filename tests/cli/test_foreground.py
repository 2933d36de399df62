"""A worker for one command: every way in which it can end, and every signal, told as one line and an exit code."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from reconvene_agent.cli import foreground
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.core.config import WorkerSection
from reconvene_agent.core.errors import EXIT_CODES, AgentError, ErrorCode, UsageError
from reconvene_agent.core.protocol import PredictRequest
from reconvene_agent.daemon.board.pauses import Guard
from support.agents import THERMAL
from support.commandline import Cli, Running, configured
from support.daemons import StrainedBoard
from support.models import RUNTIME
from support.runs import NOBODY
from support.waiting import until
from support.workers import ROGUES, honest, rogue

StandIn = Callable[..., Path]

BUSY = """
channel.event("warning", {"text": "busy"})
while True:
    channel.check()
    time.sleep(0.01)
"""
DEAF = """
channel.event("warning", {"text": "deaf"})
while True:
    time.sleep(60)
"""


@pytest.fixture
def words(bundle: Path, tmp_path: Path) -> tuple[object, ...]:
    """Return a command that needs a worker, but for its configuration."""
    return ("prune", bundle, "--sparsity", 0.9, "--out", tmp_path / "out", "--json", "--config")


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.fixture
def others() -> set[psutil.Process]:
    """Return the children that there are already: another test's, which shares the process."""
    return children()


# --- how a worker ends -------------------------------------------------------------------------------------------------------


def test_a_result_is_handed_back_and_the_signals_are_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: set[psutil.Process]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    limits = WorkerSection(
        python=honest(tmp_path / "python", "channel.progress(Step.PLAN, 0.5, 'half')\nreturn {'x': [1, None]}")
    )
    assert run_worker(NOBODY, limits, threads=1) == {"x": [1, None]}
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert capsys.readouterr() == ("", "plan       50% half\n")
    until(lambda: not children() - others)


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.INTERRUPTED])
def test_what_a_worker_fails_with_is_what_the_command_fails_with(
    code: ErrorCode, stand_in: StandIn, words: tuple[object, ...], cli: Cli
) -> None:
    ended = cli(*words, stand_in(f"raise AgentError('this is why', ErrorCode.{code.name})"))
    assert ended.code == EXIT_CODES[code] != 0
    error = ended.error(code.value)["error"]
    assert (error["detail"], error["retryable"]) == ("this is why", code.retryable)


def test_what_a_failed_worker_kept_of_its_work_is_in_the_error(tmp_path: Path) -> None:
    body = "raise AgentError('too large', ErrorCode.INFEASIBLE, {'plan': 1})"
    with pytest.raises(AgentError, match="too large") as caught:
        run_worker(NOBODY, WorkerSection(python=honest(tmp_path / "python", body)), threads=1)
    assert (caught.value.result, caught.value.exit_code) == ({"plan": 1}, 6)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("leaves without a word", "the worker left with exit code 0 and no result"),
        ("exits 3", "the worker left with exit code 3 and no result: out of luck"),
        ("segfaults", "the worker crashed with SIGSEGV"),
        ("greets in another version", "the worker broke its protocol: it did not greet with protocol 1: "),
        ("says rubbish", "the worker broke its protocol: it sent b'rubbish"),
    ],
)
def test_a_worker_that_breaks_is_told_in_a_line(
    what: str, line: str, words: tuple[object, ...], cli: Cli, tmp_path: Path
) -> None:
    config = configured(tmp_path, worker={"python": rogue(tmp_path / "rogue", ROGUES[what])})
    ended = cli(*words, config)
    assert ended.code == 1
    ended.error("INTERNAL")
    assert ended.complaint.startswith(line)


def test_a_worker_that_is_killed_from_outside(words: tuple[object, ...], cli: Cli, tmp_path: Path) -> None:
    config = configured(tmp_path, worker={"python": rogue(tmp_path / "rogue", ROGUES["is killed"])})
    ended = cli(*words, config)
    assert ended.code == 130
    ended.error("INTERRUPTED")
    assert ended.complaint == "the worker was ended by SIGKILL from outside"


@pytest.mark.parametrize(
    ("body", "limit", "line"),
    [
        ("hang()", "start_timeout_s", "the worker was stopped: no handshake within 0.2 s"),
        ("ready(); hear(); hang()", "stall_timeout_s", "the worker was stopped: silent for 0.2 s"),
    ],
)
def test_a_worker_that_hangs_is_given_up(
    body: str, limit: str, line: str, words: tuple[object, ...], cli: Cli, tmp_path: Path
) -> None:
    config = configured(tmp_path, worker={"python": rogue(tmp_path / "rogue", body), limit: 0.2})
    ended = cli(*words, config)
    assert ended.code == 10
    ended.error("TIMED_OUT")
    assert ended.complaint == line


def test_a_worker_that_stays_after_its_result_is_not_waited_for(tmp_path: Path) -> None:
    body = "ready(); hear(); say('done', result={'x': 1}); hang()"
    limits = WorkerSection(python=rogue(tmp_path / "rogue", body), stop_timeout_s=0.2)
    started = time.monotonic()
    assert run_worker(NOBODY, limits, threads=1) == {"x": 1}
    assert time.monotonic() - started < 5


def test_an_interpreter_that_is_not_there(words: tuple[object, ...], cli: Cli, tmp_path: Path) -> None:
    ended = cli(*words, configured(tmp_path, worker={"python": "/nowhere/python"}))
    assert ended.code == 1
    ended.error("INTERNAL")
    assert ended.complaint == "the worker cannot be started: /nowhere/python: No such file or directory"


def test_a_request_over_the_channels_limit_is_refused() -> None:
    request = PredictRequest(tuple(f"/{number}.png" for number in range(100_000)), "/", RUNTIME)
    with pytest.raises(UsageError, match=r"this cannot be handed to a worker: a message of \d+ bytes is over"):
        run_worker(request, WorkerSection(), threads=1)


def test_threads_reach_the_worker(tmp_path: Path) -> None:
    body = "import os\nreturn {'threads': os.environ['OMP_NUM_THREADS']}"
    assert run_worker(NOBODY, WorkerSection(python=honest(tmp_path / "python", body)), threads=3) == {"threads": "3"}


@pytest.mark.parametrize("debug", [False, True])
def test_what_a_worker_mutters_is_for_debug_only(debug: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = WorkerSection(python=honest(tmp_path / "python", "print('muttered', file=sys.stderr)\nprint('and this')\nreturn {}"))
    run_worker(NOBODY, limits, 1, debug)
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(err.splitlines()) == (["and this", "muttered"] if debug else [])


def test_nobody_reading_progress_any_more_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: set[psutil.Process]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    limits = WorkerSection(python=honest(tmp_path / "python", DEAF))
    with suppress(BrokenPipeError), os.fdopen(writing, "w") as closed:
        monkeypatch.setattr("sys.stderr", closed)
        with pytest.raises(BrokenPipeError):
            run_worker(NOBODY, limits, threads=1)
    until(lambda: not children() - others)


# --- signals -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_worker_that_was_asked_to_stop_is_waited_for(
    number: signal.Signals, code: int, stand_in: StandIn, words: tuple[object, ...]
) -> None:
    with Running(*words, stand_in(BUSY, stop_timeout_s=600.0)) as running:
        running.wait_line("warning: busy")
        running.signal(number)
        ended = running.end()
    assert ended.code == code
    assert ended.error("INTERRUPTED")["error"]["detail"] == "stopped: nothing was changed"


def test_a_worker_that_does_not_stop_is_made_to(stand_in: StandIn, words: tuple[object, ...]) -> None:
    with Running(*words, stand_in(DEAF, stop_timeout_s=0.2)) as running:
        running.wait_line("warning: deaf")
        running.signal(signal.SIGTERM)
        ended = running.end(10)
    assert ended.code == 143
    ended.error("INTERRUPTED")


def test_a_result_that_was_faster_than_the_signal_counts(stand_in: StandIn, words: tuple[object, ...]) -> None:
    body = "channel.event('warning', {'text': 'nearly'})\nwhile channel._stop is None:\n    time.sleep(0.01)\n"
    with Running(*words, stand_in(body + "return {'x': 1}")) as running:
        running.wait_line("warning: nearly")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert (ended.code, ended.document) == (0, {"x": 1})


# --- pauses ------------------------------------------------------------------------------------------------------------------

# Goes on where it was suspended, which a file tells.
RESUMABLE = """
seen = Path({seen!r})
starts = int(seen.read_text()) if seen.exists() else 0
seen.write_text(str(starts + 1))
channel.event("warning", {{"text": f"start {{starts + 1}}"}})
if starts == 0:
    wait_for("/nowhere", channel)
return {{"starts": starts + 1}}
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrainedBoard:
    """Return the board that this process runs on, and looks at often."""
    made = StrainedBoard(tmp_path / "board")
    monkeypatch.setattr(foreground, "HOST", made.root)
    monkeypatch.setattr(foreground, "LOOK_EVERY_S", 0.02)
    return made


class Told:
    """A stream that hears what is said on stderr, and does something upon it."""

    def __init__(self, upon: dict[str, Callable[[], None]]) -> None:
        self.lines: list[str] = []
        self._upon = upon

    def write(self, text: str) -> int:
        if text.strip():
            self.lines.append(text.strip())
            for word, action in self._upon.items():
                if word in text:
                    action()
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def test_a_hot_board_pauses_the_run_which_goes_on_by_itself(
    board: StrainedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: set[psutil.Process]
) -> None:
    told = Told({"start 1": lambda: board.fares(90.0), "paused: ": lambda: board.fares(60.0)})
    monkeypatch.setattr("sys.stderr", told)
    limits = WorkerSection(python=honest(tmp_path / "python", RESUMABLE.format(seen=str(tmp_path / "seen"))))
    assert run_worker(NOBODY, limits, 1, guard=Guard(THERMAL)) == {"starts": 2}
    paused = "paused: the board is too hot: 90 °C, over 80; goes on below 70"
    assert told.lines == ["warning: start 1", paused, "going on", "warning: start 2"]
    until(lambda: not children() - others)


def test_a_run_does_not_start_on_a_weak_supply_and_ctrl_c_ends_the_wait(
    board: StrainedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.fares(50.0, under_voltage=True)
    told = Told({"paused: ": lambda: signal.raise_signal(signal.SIGINT)})
    monkeypatch.setattr("sys.stderr", told)
    limits = WorkerSection(python=honest(tmp_path / "python", RESUMABLE.format(seen=str(tmp_path / "seen"))))
    with pytest.raises(AgentError, match="stopped: run the same command again to go on") as caught:
        run_worker(NOBODY, limits, 1, guard=Guard(THERMAL))
    assert caught.value.exit_code == 130
    assert not (tmp_path / "seen").exists(), "no worker was started"
    assert told.lines == ["paused: under-voltage: the board's power supply is too weak"]


def test_ctrl_c_while_the_worker_is_being_paused_stops_the_run(
    board: StrainedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
channel.event("warning", {"text": "slow"})
while channel._stop is None:
    time.sleep(0.01)
time.sleep(0.3)
channel.check()
"""
    told = Told({"slow": lambda: board.fares(90.0), "paused: ": lambda: signal.raise_signal(signal.SIGINT)})
    monkeypatch.setattr("sys.stderr", told)
    with pytest.raises(AgentError, match="stopped: ") as caught:
        run_worker(NOBODY, WorkerSection(python=honest(tmp_path / "python", body)), 1, guard=Guard(THERMAL))
    assert caught.value.exit_code == 130
    assert "stopping at a safe point; once more to stop at once" in told.lines


def test_what_is_not_resumable_takes_no_heed_of_the_board(board: StrainedBoard, tmp_path: Path) -> None:
    board.fares(90.0)
    assert run_worker(NOBODY, WorkerSection(python=honest(tmp_path / "python", "return {}")), 1) == {}
