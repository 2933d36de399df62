"""The trial of a deployed file in a fresh process that holds nothing but ONNX Runtime: ``python -m …deploy.trial``.

It is asked on standard input and answers on standard output, one JSON document each.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from reconvene_agent.core.budget import Budget
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.measuring import Measurement, better, worth_repeating
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker import memory
from reconvene_agent.worker.deploy.session import Session, Stopwatch, measure_once, open_session
from reconvene_agent.worker.expendable import become_expendable


class Task(Struct, frozen=True):
    """Try the file ``model``, for about ``seconds``, unless it takes more than ``memory_mb``. ``parent`` is who asks."""

    model: str
    runtime: Runtime
    seconds: float
    parent: int
    memory_mb: float | None = None


class Outcome(Struct, frozen=True):
    """What a file takes: its peak of memory in MiB above the imported library, and its latency where that was still of interest.

    ``repeats`` is how often it was measured again.
    """

    memory_mb: float
    measurement: Measurement | None
    repeats: int = 0


def attempt(task: Task) -> Outcome:
    """Open the file as an application would, run it, and tell what it takes.

    Raises:
        AgentError: the file cannot be loaded.
    """
    gc.collect()
    memory.start_peak()
    resident, mirrored = memory.resident_mb(), memory.file_backed_mb()
    session = open_session(Path(task.model), task.runtime)
    watch = Stopwatch(session)
    watch.warm_up()
    # The library's own code, read from disk page by page as it is first used, belongs to no model.
    taken = round(max(0.0, memory.peak_mb() - resident - max(0.0, memory.file_backed_mb() - mirrored)), 3)
    if task.memory_mb is not None and taken > task.memory_mb:
        return Outcome(taken, None)
    measurement, repeats = measured(session, task.seconds)
    return Outcome(taken, measurement, repeats)


def measured(session: Session, seconds: float) -> tuple[Measurement, int]:
    """Return the final measurement of a model and how often it was taken again because it was doubtful."""
    found, repeats = measure_once(session, seconds), 0
    while worth_repeating(found, Budget(), repeats, final=True):
        found, repeats = better(found, measure_once(session, seconds)), repeats + 1
    return found, repeats


def main() -> int:
    answer = os.dup(1)
    os.dup2(2, 1)
    become_expendable()
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    if os.getppid() != task.parent:
        return 0
    try:
        outcome = attempt(task)
    except AgentError as error:
        print(error.message, file=sys.stderr)
        return 1
    with os.fdopen(answer, "wb") as file:
        file.write(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
