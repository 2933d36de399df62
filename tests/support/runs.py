"""Runs of the worker for tests: in this process with an ear for what it reports, or as the process that it really is."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.job import Step
from reconvene_agent.core.options import MethodOptions, ReleaseOptions, TrainingOptions
from reconvene_agent.core.protocol import Happening, PlanRequest, PredictRequest, Progress, Request, SpecializeRequest, Upward
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from reconvene_agent.daemon.worker.process import WorkerProcess
from support.contract import check_word
from support.models import RUNTIME
from support.pictures import digits

DEADLINE_S = 60.0
NOBODY = PredictRequest(("/a.png",), "/nowhere", RUNTIME)
"""A request that asks for little and comes to nothing."""


class Ear:
    """Stands for the worker's channel: hears everything, and stops the run where ``stop`` raises.

    What it hears must be what the contract says.
    """

    def __init__(self, stop: Callable[[Step, float, str], None] | None = None) -> None:
        self.steps: list[Step] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._stop = stop

    def progress(self, step: Step, fraction: float, note: str = "") -> None:
        assert 0.0 <= fraction <= 1.0
        if not self.steps or self.steps[-1] is not step:
            self.steps.append(step)
        if self._stop is not None:
            self._stop(step, fraction, note)

    def start_afresh(self, request: Request) -> None:
        """Go on as one does where the system does not allow it."""

    def event(self, name: str, data: dict[str, Any]) -> None:
        told = msgspec.json.decode(msgspec.json.encode(data))
        check_word(Happening(name, told), "")
        self.events.append((name, told))

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return the data of every event of that name."""
        return [data for each, data in self.events if each == name]


class Watched:
    """A real worker process, and everything that it says, which must be what the contract says."""

    def __init__(self, request: Request, python: str = "") -> None:
        self._events: queue.SimpleQueue[WorkerSaid | WorkerEnded] = queue.SimpleQueue()
        self.log: list[str] = []
        self.said: list[Upward] = []
        self.ended: WorkerEnded | None = None
        self._op = {SpecializeRequest: "specialize", PlanRequest: "plan"}.get(type(request), "")
        self.process = WorkerProcess("test", request, self._events.put, self.log.append, python)

    def until(self, wanted: Callable[[Upward], bool]) -> Upward:
        """Listen until it says what is wanted."""
        while True:
            event = self._events.get(timeout=DEADLINE_S)
            assert isinstance(event, WorkerSaid), f"it ended before that: {event}"
            self._heard(event.message)
            if wanted(event.message):
                return event.message

    def end(self) -> WorkerEnded:
        """Listen until it is gone."""
        while self.ended is None:
            event = self._events.get(timeout=DEADLINE_S)
            if isinstance(event, WorkerEnded):
                self.ended = event
            else:
                self._heard(event.message)
        return self.ended

    def _heard(self, message: Upward) -> None:
        check_word(message, self._op)
        self.said.append(message)

    @property
    def outcome(self) -> Upward:
        """Return its last word."""
        self.end()
        return self.said[-1]

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return the data of every event of that name."""
        return [each.data for each in self.said if isinstance(each, Happening) and each.name == name]

    @property
    def steps(self) -> list[Step]:
        """Return the steps that it went through, in order."""
        steps: list[Step] = []
        for each in self.said:
            if isinstance(each, Progress) and (not steps or steps[-1] is not each.step):
                steps.append(each.step)
        return steps


def archive(path: Path, count: int) -> Path:
    """Write the first of the shipped digits as an archive of their own."""
    x, y = digits(count)
    np.savez(path, x=x, y=y)
    return path


def plan_request(bundle: Path, sparsity: float | None = 0.9, **limits: float) -> PlanRequest:
    """Return the request for a plan; without a sparsity to impose, limits decide."""
    budget = Budget(**{name: Limit(value, "test") for name, value in limits.items()})
    return PlanRequest(str(bundle), budget, RUNTIME, MethodOptions(), (0.0, 0.5, 0.9), (1.0,), 32, sparsity)


def specialize_request(
    bundle: Path, data: Path, root: Path, plan: PlanRequest | None = None, **training: object
) -> SpecializeRequest:
    """Return the request for a run whose work and models lie below ``root``; a release may be of any accuracy."""
    settings = {"epochs": 2, "batch": 32, "learning_rate": 0.05, **training}
    options = TrainingOptions(**settings)
    work, models = str(root / "work"), str(root / "models")
    return SpecializeRequest(plan or plan_request(bundle), options, str(data), work, models, ReleaseOptions(margin=1.0))
