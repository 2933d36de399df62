"""The interpreter is a real one, but for the libraries: those are small files, found before the real ones."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconvene_agent import __version__
from reconvene_agent.cli.doctor import worker
from reconvene_agent.cli.doctor.account import Account, acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Kind
from reconvene_agent.core import profile
from support.doctoring import NOBODY, case, codes, over, told
from support.waiting import until

LIBRARIES = {
    "numpy": "__version__ = '2.4.0'",
    "torch": "__version__ = '2.13.0+cpu'\nclass cuda:\n    is_available = staticmethod(lambda: False)",
    "safetensors": "__version__ = '0.8.0'",
    "PIL": "__version__ = '13.0'",
    "onnx": "__version__ = '1.23.0'",
    "onnxscript": "__version__ = '0.7'",
    "onnxruntime": "__version__ = '1.32'\nget_available_providers = lambda: ['CPUExecutionProvider']",
}

Python = Callable[..., Case]


@pytest.fixture
def with_python(tmp_path: Path) -> Python:
    """Return what makes a case whose worker's Python finds libraries with other contents."""

    def make(folder: Path = tmp_path, limit_s: float = 60.0, **changed: str) -> Case:
        libraries = folder / "libraries"
        libraries.mkdir()
        for name, text in {**LIBRARIES, **changed}.items():
            (libraries / f"{name}.py").write_text(text)
        return interpreted(folder, f'PYTHONPATH={libraries} exec {sys.executable} "$@"', limit_s)

    return make


def interpreted(folder: Path, line: str, limit_s: float = 60.0) -> Case:
    """Return a case whose worker's interpreter is a line of shell."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{line}\n")
    python.chmod(0o755)
    return case(folder, worker={"python": str(python), "start_timeout_s": limit_s})


def test_what_it_takes_is_kept_for_the_memory(with_python: Python, tmp_path: Path) -> None:
    made = with_python()
    found = told(worker.check(made), worker.GOOD).found
    assert found.startswith(f"{tmp_path}/python (Python {sys.version.split()[0]}) loads numpy 2.4.0, torch 2.13.0+cpu, ")
    assert made.libraries_mb is not None
    assert 5 < made.libraries_mb < 100


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    made = case(tmp_path, worker={"python": "/no/python"})
    assert told(worker.check(made), worker.UNSTARTABLE).found.startswith("/no/python cannot be started by the user ")


def test_an_interpreter_that_may_not_be_started(tmp_path: Path) -> None:
    made = interpreted(tmp_path, "exit 0")
    (tmp_path / "python").chmod(0o644)
    assert "Permission denied" in told(worker.check(made), worker.UNSTARTABLE).found


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("exit 3", "it ended with 3 without a word"),
        ("exit 0", "it ended with 0 without a word"),
        ("kill -SEGV $$", "SIGSEGV ended it without a word"),
        ("echo hello; exit 0", "it says 'hello'"),
        ("echo one >&2; echo 'no such thing' >&2; exit 1", "it says 'no such thing'"),
        ("printf '\\377\\n'", "it says '\ufffd'"),
        ("echo '{}'", "it ended with 0 without a word"),
    ],
)
def test_what_is_no_python(tmp_path: Path, line: str, why: str) -> None:
    assert told(worker.check(interpreted(tmp_path, line)), worker.NOT_PYTHON).found.endswith(f"with reconvene-agent: {why}")


def test_a_python_that_says_rubbish_in_the_middle(with_python: Python) -> None:
    found = list(worker.check(with_python(torch="print('welcome to torch')")))
    assert told(found, worker.NOT_PYTHON).found.endswith("it says 'welcome to torch'")


def test_a_python_without_the_agent(tmp_path: Path) -> None:
    found = told(worker.check(interpreted(tmp_path, f'exec {sys.executable} -IS "$@"')), worker.NO_AGENT)
    assert found.advice == f"{tmp_path}/python -m pip install 'reconvene-agent[worker]=={__version__}'"


def test_a_python_with_another_agent(with_python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "__version__", "99.0")
    found = told(worker.check(with_python()), worker.OTHER_AGENT)
    assert found.found.endswith(f"has reconvene-agent {__version__}, but this is 99.0")


def test_every_library_that_is_missing_is_named(with_python: Python, tmp_path: Path) -> None:
    absent = "raise ModuleNotFoundError('no', name=__name__)"
    found = list(worker.check(with_python(torch=absent, onnx="import filelock_of_old", PIL=absent)))
    assert codes(found) == [worker.MISSING.code] * 3
    assert [each.found.partition("lacks ")[2] for each in found] == [
        "torch, which the worker needs",
        "PIL, which the worker needs",
        "filelock_of_old, which onnx needs",
    ]
    assert [each.advice.partition("pip install ")[2] for each in found] == [
        "'torch<3,>=2.6'",
        "'pillow>=10'",
        "'filelock_of_old'",
    ]


def test_a_library_that_cannot_be_loaded(with_python: Python) -> None:
    found = told(worker.check(with_python(torch="raise OSError('libcudart.so.10.2: no such file')")), worker.BROKEN)
    assert found.found.endswith("cannot load torch: OSError: libcudart.so.10.2: no such file")
    assert "-c 'import torch' shows the whole error" in found.advice


@pytest.mark.parametrize(
    ("number", "kind", "how"),
    [
        (signal.SIGILL, worker.ILLEGAL, "ended by SIGILL"),
        (signal.SIGSYS, worker.FILTERED, "ended by SIGSYS"),
        (signal.SIGKILL, worker.KILLED, "killed"),
        (signal.SIGSEGV, worker.CRASHED, "ended by SIGSEGV"),
    ],
)
def test_a_library_that_takes_the_process_down(with_python: Python, number: signal.Signals, kind: Kind, how: str) -> None:
    found = told(worker.check(with_python(torch=f"import os; os.kill(os.getpid(), {number.value})")), kind)
    assert found.found.endswith(f"was {how} while it loaded torch")


def test_a_library_that_is_too_old_or_too_new(with_python: Python) -> None:
    found = list(
        worker.check(with_python(numpy="__version__ = '1.25.2'", torch=LIBRARIES["torch"].replace("2.13.0+cpu", "3.0.0a0")))
    )
    assert codes(found) == [worker.WRONG_VERSION.code] * 2
    assert [each.found.partition("has ")[2] for each in found] == [
        "numpy 1.25.2, but >=1.26 is needed",
        "torch 3.0.0a0, but <3,>=2.6 is needed",
    ]
    told(found[:1], worker.WRONG_VERSION)


def test_an_import_that_never_ends(with_python: Python, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    text = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    found = told(worker.check(with_python(limit_s=1.5, torch=text)), worker.LATE)
    assert found.found.endswith("had not loaded everything after 2 s; it was busy with torch")
    until(lambda: over(pid))


@pytest.mark.parametrize("line", ["exec sleep 600", "exec >&- 2>&-; exec sleep 600", "while :; do echo >&2 $$; done"])
def test_an_interpreter_that_never_says_who_it_is(tmp_path: Path, line: str) -> None:
    found = told(worker.check(interpreted(tmp_path, line, 0.3)), worker.LATE)
    assert "it was busy with reconvene_agent" in found.found


def test_what_an_interpreter_has_started_does_not_keep_us(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    told(worker.check(interpreted(tmp_path, f"sleep 600 & echo $! >{pid}; exit 4", 0.5)), worker.LATE)
    until(lambda: over(pid))


def test_a_profile_for_cuda_without_it(with_python: Python) -> None:
    made = with_python()
    jetson = profile.load_all()["jetson-orin-nano"]
    made.profile = replace(jetson, compute=replace(jetson.compute, training_device="cuda"))
    found = list(worker.check(made))
    assert told(found, worker.NO_CUDA).found.startswith("the profile jetson-orin-nano trains on CUDA, but the torch of ")
    missing = told(found, worker.NO_PROVIDER).found
    assert "CUDAExecutionProvider of ONNX Runtime" in missing
    assert missing.endswith("inference takes CPUExecutionProvider")
    assert codes(found)[0] == worker.GOOD.code


@pytest.mark.usefixtures("as_root")
def test_the_interpreter_is_started_as_the_service(everybodys: Path) -> None:
    made = interpreted(everybodys, "echo users: $(id -u) groups: $(id -G)")
    made.service = NOBODY
    assert told(worker.check(made), worker.NOT_PYTHON).found.endswith("it says 'users: 65534 groups: 65534'")


@pytest.mark.usefixtures("as_root")
def test_who_may_not_act_as_the_service_does_not_try(tmp_path: Path) -> None:
    made = case(tmp_path)
    made.service = Account.of_user(1)
    with acting_as(NOBODY):
        found = list(worker.check(made))
    assert codes(found) == [worker.UNREACHABLE.code]
    told(found, worker.UNREACHABLE)


@pytest.mark.parametrize(
    ("version", "wanted", "is_met"),
    [
        ("2.13.0+cpu", "<3,>=2.6", True),
        ("2.5.1", "<3,>=2.6", False),
        ("2.6", ">=2.6", True),
        ("2.10", ">=2.6", True),
        ("3.0", "<3,>=2.6", False),
        ("2.1.0a0+41361538.nv23.06", "<3,>=2.6", False),
        ("1.0", "", True),
        ("1.0", "<=2", True),
        ("", ">=1", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, is_met: bool) -> None:
    assert worker.satisfied(version, wanted) is is_met
