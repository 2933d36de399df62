"""A model tried in a process of its own, which is really started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import msgspec
import psutil
import pytest

from reconvene_agent.core import heap
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy import trying
from reconvene_agent.worker.deploy.trial import Task
from reconvene_agent.worker.deploy.trying import ENTRY, TrialFailed, try_model
from support.graphs import product

RUNTIME = Runtime(1, 1, ("CPUExecutionProvider",), 1)
MIB = 2**20


def nothing() -> None:
    pass


def test_a_fresh_process_tells_memory_and_latency() -> None:
    small, large = (try_model(product(side), RUNTIME, 0.05, None, nothing) for side in (64, 2048))
    assert 0 < small.memory_mb < 8
    # The weights are in memory at least once, as the library's own, and no more often than the file, its parsed copy and packed.
    assert 16 < large.memory_mb - small.memory_mb < 80
    assert small.measurement is not None
    assert large.measurement is not None
    assert small.measurement.latency.runs >= 30
    assert 0 < small.measurement.latency.p50 < large.measurement.latency.p50
    assert small.measurement.conditions.others is not None


def test_what_takes_too_much_memory_is_not_timed() -> None:
    outcome = try_model(product(1024), RUNTIME, 60.0, 2.0, nothing)
    assert outcome.memory_mb > 4
    assert outcome.measurement is None


def test_the_process_holds_nothing_but_the_runtime() -> None:
    heavy = ("torch", "onnx", "safetensors", "PIL")
    program = f"import sys, reconvene_agent.worker.deploy.trial; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_no_model_is_told() -> None:
    with pytest.raises(TrialFailed, match=r"^exit code 1: ONNX Runtime cannot load the model"):
        try_model(b"hello", RUNTIME, 0.05, None, nothing)


def test_it_can_be_called_off_at_any_time() -> None:
    class Enough(Exception):  # noqa: N818
        pass

    def stop() -> None:
        raise Enough

    before = psutil.Process().children()
    began = time.monotonic()
    with pytest.raises(Enough):
        try_model(product(64), RUNTIME, 60.0, None, stop)
    assert time.monotonic() - began < 10
    assert psutil.Process().children() == before


def site(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every Python started from here run ``code`` first."""
    (folder / "sitecustomize.py").write_text(dedent(code))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_one_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = psutil.Process().children()
    site(tmp_path, monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(trying, "TIMEOUT_S", 0.5)
    with pytest.raises(TrialFailed, match=r"^no answer within 0 s$"):
        try_model(product(64), RUNTIME, 0.05, None, nothing)
    assert psutil.Process().children() == before


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "^killed by signal 9$"),
        ("import os; os._exit(3)", "^exit code 3$"),
        ("import os; os.write(1, b'{}'); os._exit(0)", "^its answer cannot be read$"),
        ("import os; os._exit(0)", "^its answer cannot be read$"),
    ],
)
def test_one_that_fails_says_how(code: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(tmp_path, monkeypatch, code)
    with pytest.raises(TrialFailed, match=complaint):
        try_model(product(64), RUNTIME, 0.05, None, nothing)


def test_it_keeps_its_memory_as_any_application_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(tmp_path, monkeypatch, "import os; os.write(2, repr(os.environ.get('GLIBC_TUNABLES')).encode()); os._exit(1)")
    for name, value in heap.kept_together({}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrialFailed, match=r": None$"):
        try_model(product(64), RUNTIME, 0.05, None, nothing)


def test_an_interpreter_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TrialFailed, match=r"^No such file or directory$"):
        try_model(b"", RUNTIME, 0.05, None, nothing)


def test_it_dies_with_who_started_it() -> None:
    program = dedent(
        """
        import subprocess, sys
        process = subprocess.Popen([sys.executable, *{entry!r}], stdin=subprocess.PIPE)
        print(process.pid, flush=True)
        sys.stdin.read()
        """
    ).format(entry=ENTRY)
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while "deploy.trial" not in " ".join(child.cmdline()) or not _expendable(child.pid):
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child.wait(10)
    parent.stdin.close()
    parent.stdout.close()


def _expendable(pid: int) -> bool:
    return Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"


def test_one_whose_parent_is_another_does_nothing() -> None:
    task = msgspec.json.encode(Task("/nowhere", RUNTIME, 60.0, os.getppid()))
    done = subprocess.run([sys.executable, *ENTRY], input=task, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
