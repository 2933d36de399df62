from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from reconvene_agent.worker.priority import NICENESS, Priority

# In a process of its own: what steps back can never come forward again.
_PROGRAM = """
import json, os, threading
from reconvene_agent.worker.priority import Priority

def mine():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

def elsewhere():
    found = []
    thread = threading.Thread(target=lambda: found.append(mine()))
    thread.start()
    thread.join()
    return found[0]

ready, asked, told = threading.Event(), threading.Event(), []
def older():
    ready.set()
    asked.wait()
    told.append(mine())

thread = threading.Thread(target=older)
thread.start()
ready.wait()
priority = Priority()
before = mine()
priority.lower()
asked.set()
thread.join()
numbers = {"main": mine(), "older": told[0], "younger": elsewhere(),
           "aside": priority.normally(mine), "started aside": priority.normally(elsewhere)}
print(json.dumps({name: number - before for name, number in numbers.items()}))
"""


def test_all_threads_step_back_but_the_one_that_measures() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, check=True)
    back = {"main": NICENESS, "older": NICENESS, "younger": NICENESS}
    assert json.loads(done.stdout) == {**back, "aside": 0, "started aside": 0}


_DISK = """
import psutil
from reconvene_agent.worker.priority import Priority
Priority().lower()
print(int(psutil.Process().ionice().ioclass == psutil.IOPRIO_CLASS_IDLE))
"""


def test_the_disk_is_used_when_nobody_else_wants_it() -> None:
    done = subprocess.run([sys.executable, "-c", _DISK], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"1\n"


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), psutil.AccessDenied()])
def test_a_system_without_such_a_class_is_no_error(error: Exception) -> None:
    program = f"""
import psutil
def refuse(*_): raise {error!r}
psutil.Process.ionice = refuse
{_PROGRAM}"""
    program = program.replace("psutil.AccessDenied()", "psutil.AccessDenied(1)")
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)


def test_what_goes_wrong_in_the_thread_aside_is_told() -> None:
    def work() -> None:
        raise KeyError("there")

    with pytest.raises(KeyError, match="there"), Priority() as priority:
        priority.normally(work)
