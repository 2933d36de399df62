"""Runs in processes of their own, one thread each: two small trainings side by side are faster than one on two cores.

Results do not depend on how many run at once. Children ignore Ctrl-C and stop at the next step when the parent says so.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import torch

from accuracy import engine
from accuracy.arms import ARMS, Case, Point
from accuracy.settings import Settings
from accuracy.training import Recipe, Stopped, train
from reconvene_agent.worker.data.dataset import Dataset


@dataclass(frozen=True)
class Task:
    """One run to be done."""

    settings: Settings
    arm: str
    seed: int
    matches: Mapping[str, float]

    @property
    def point(self) -> Point:
        return Point(self.settings.family, self.settings.sparsity, self.seed, self.matches)

    def twin(self) -> tuple[Settings, int, str]:
        """Return the same for two tasks that would train the same network alike; rounded widths often coincide."""
        return self.settings, self.seed, ARMS[self.arm].identity(self.point) or f"arm {self.arm}"

    def renamed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a twin as this task's."""
        return {**record, "arm": self.arm, "match": self.matches.get(self.arm)}


class _Child:
    """What a child process was given when it started."""

    data: Dataset
    stop: Event


def _start(data: Dataset, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _Child.data, _Child.stop = data, stop


def _check() -> None:
    parent = multiprocessing.parent_process()
    if _Child.stop.is_set() or (parent is not None and not parent.is_alive()):
        raise Stopped


def run(task: Task) -> dict[str, Any]:
    """Make an arm's model, train it and return its record."""
    settings, spec = task.settings, task.settings.family.spec
    recipe = Recipe(settings.epochs, settings.learning_rate, task.seed, settings.device, _check)
    plan = ARMS[task.arm].plan(Case(task.point, _Child.data, recipe))
    params = sum(parameter.numel() for parameter in plan.module.parameters())
    zeros = sum(int((~mask).sum()) for mask in plan.masks.values())
    trained = train(plan.module, plan.masks, _Child.data, recipe)
    return {
        "arm": task.arm,
        "seed": task.seed,
        "accuracy": round(trained.accuracy, 5),
        "diverged": trained.diverged,
        "params": params,
        "nonzero": params - zeros,
        "macs": engine.macs(spec, plan.widths),
        "seconds": round(trained.seconds + plan.search_seconds, 2),
        "search_seconds": round(plan.search_seconds, 2),
        "match": task.matches.get(task.arm),
        "shape": engine.shape_digest(spec, plan.widths),
        "widths": plan.widths,
        "settings": settings.document(),
    }


def done(tasks: Iterable[Task], data: Dataset, jobs: int) -> Generator[dict[str, Any], None, None]:
    """Yield the record of each task as it is finished. Closing the iterator stops the runs under way."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(jobs, context, _start, (data, stop)) as pool:
        waiting: set[Future[dict[str, Any]]] = {pool.submit(run, task) for task in tasks}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
