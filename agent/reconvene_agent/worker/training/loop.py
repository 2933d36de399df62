"""The training loop: epochs of steps, each epoch judged on the held-out inputs, the best of them kept.

It can be stopped or killed at any moment: it goes on from the last checkpoint, and ends with the same weights to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace
from torch import Tensor, nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.checkpoint import Checkpoint, Position
from reconvene_agent.worker.training.interval import Interval
from reconvene_agent.worker.training.learner import Learner
from reconvene_agent.worker.training.order import Order
from reconvene_agent.worker.training.schedule import SCHEDULES

RESTARTS = 1
LOWER_RATE = 0.2
"""After training diverged it begins anew at this share of the learning rate, so many times."""
HOPELESS = 4.0
"""Times the loss of guessing: an epoch whose mean loss is beyond that has diverged, even if every number is finite."""

Report = Callable[[float, str], None]


class Interrupted(Exception):  # noqa: N818 - not an error
    """Raised by a report when the run is to stop, with its ``reason``: the loop saves a checkpoint and lets it pass."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class _DivergedError(Exception):
    """The loss is no number any more, or far beyond what guessing gives."""


@dataclass(frozen=True)
class Epoch:
    """Figures of one finished epoch; ``loss`` is the mean over its steps, ``best`` whether it is the best so far."""

    number: int
    loss: float
    accuracy: float
    learning_rate: float
    best: bool = True

    def document(self) -> dict[str, Any]:
        return {
            "epoch": self.number,
            "loss": round(self.loss, 5),
            "accuracy": round(self.accuracy, 5),
            "learning_rate": round(self.learning_rate, 7),
            "best": self.best,
        }


class Trainer:
    """Trains one model on one dataset: ``epochs`` passes at most. ``initial`` returns the model as it was before training."""

    def __init__(
        self,
        learner: Learner,
        data: Dataset,
        options: TrainingOptions,
        epochs: int,
        checkpoint: Checkpoint,
        initial: Callable[[], PrunedModel],
    ) -> None:
        self._learner = learner
        self._data = data
        self._options = options
        self._epochs = epochs
        self._checkpoint = checkpoint
        self._initial = initial
        self._order = Order(data.train.classes, options.balance, options.seed)
        self.batch = min(options.batch, len(data.train))
        """Inputs per step: what was asked for, or all there are."""
        # A last batch of one has no variance to normalise by, so it is left out.
        full, rest = divmod(len(data.train), self.batch)
        self._steps_per_epoch = full + (1 if rest > 1 else 0)
        self._inputs_per_epoch = full * self.batch + (rest if rest > 1 else 0)
        self._total = self._steps_per_epoch * epochs
        self._interval = Interval()
        self._began = time.monotonic()
        self._before = 0.0

    def run(self, report: Report, on_epoch: Callable[[Epoch], None], warn: Callable[[str], None]) -> tuple[nn.Module, Position]:
        """Train to the end, from the checkpoint if there is one; return the model at its best, and the position reached.

        ``report`` hears the share of the run that is done, often; ``warn`` hears that training begins anew.

        Raises:
            Interrupted: ``report`` raised it; the checkpoint holds every step that was done.
            AgentError: DIVERGED when the loss is no number any more at a lower rate either, NO_DISK when a checkpoint cannot be
                stored.
        """
        position = self._checkpoint.restore(self._learner)
        self._began, self._before = time.monotonic(), position.seconds
        while not self._finished(position):
            position = self._epoch(position, report, on_epoch, warn)
        return self._learner.become_best(), replace(position, seconds=self._spent())

    def inputs(self, position: Position) -> int:
        """Return how many training inputs were worked through on the way to a position, whatever was begun anew left out."""
        return position.epochs * self._inputs_per_epoch

    def _finished(self, position: Position) -> bool:
        patience = self._options.patience
        return position.epochs >= self._epochs or (0 < patience <= position.epochs - position.best_epoch)

    def _spent(self) -> float:
        return self._before + time.monotonic() - self._began

    def _epoch(
        self, position: Position, report: Report, on_epoch: Callable[[Epoch], None], warn: Callable[[str], None]
    ) -> Position:
        """Do what is left of an epoch, and judge it; where it diverges, return to the start."""
        order = self._order.of(position.epochs)
        end = (position.epochs + 1) * self._steps_per_epoch

        def told() -> None:
            report(position.step / self._total, f"epoch {position.epochs + 1} of {self._epochs}")

        try:
            while position.step < end:
                told()
                position = self._step(position, order, told)
                if self._interval.is_due(self._spent()):
                    self._store(position)
            return self._judge(position, report, on_epoch)
        except _DivergedError as diverged:
            return self._begin_anew(position, str(diverged), warn)
        except Interrupted:
            self._store(position)
            raise

    def _step(self, position: Position, order: Tensor, check: Callable[[], None]) -> Position:
        first = (position.step - position.epochs * self._steps_per_epoch) * self.batch
        rate = self._rate(position)
        loss = self._learner.step(position.step, order[first : first + self.batch], rate, check)
        if not math.isfinite(loss):
            raise _DivergedError(f"the loss is no number any more at step {position.step + 1}")
        return replace(position, step=position.step + 1, loss=position.loss + loss)

    def _rate(self, position: Position) -> float:
        peak = self._options.learning_rate * LOWER_RATE**position.restarts
        return SCHEDULES[self._options.schedule](position.step, self._total, peak)

    def _judge(self, position: Position, report: Report, on_epoch: Callable[[Epoch], None]) -> Position:
        number = position.epochs + 1
        loss = position.loss / self._steps_per_epoch
        if loss > HOPELESS * math.log(max(2, int(self._data.train.classes.max()) + 1)):
            raise _DivergedError(f"the loss is {loss:.3g} after epoch {number}")
        share = position.step / self._total
        accuracy = self._learner.accuracy(
            self._data.validation, lambda _: report(share, f"evaluating epoch {number} of {self._epochs}")
        )
        rate = self._rate(replace(position, step=position.step - 1))
        best = accuracy >= position.best_accuracy
        if best:
            self._learner.note_best()
            position = replace(position, best_epoch=number, best_accuracy=accuracy)
        position = replace(position, epochs=number, loss=0.0)
        if self._finished(position) or self._interval.is_due(self._spent()):
            self._store(position)
        on_epoch(Epoch(number, loss, accuracy, rate, best))
        return position

    def _begin_anew(self, position: Position, why: str, warn: Callable[[str], None]) -> Position:
        if position.restarts >= RESTARTS:
            raise AgentError(f"training diverged: {why}, at a lower rate too; lower learning_rate", ErrorCode.DIVERGED)
        warn(f"training diverged: {why}; it begins anew at {LOWER_RATE:g} times the learning rate")
        self._learner.reset(self._initial())
        position = Position(restarts=position.restarts + 1)
        self._store(position)
        return position

    def _store(self, position: Position) -> None:
        spent, started = self._spent(), time.monotonic()
        self._checkpoint.save(self._learner, replace(position, seconds=spent))
        self._interval.stored(self._spent(), time.monotonic() - started)
