"""Runs of the training loop for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.checkpoint import Checkpoint, Position
from reconvene_agent.worker.training.learner import Learner
from reconvene_agent.worker.training.loop import Epoch, Trainer
from reconvene_agent.worker.training.settings import Settings

OPTIONS = TrainingOptions(epochs=3, batch=32, learning_rate=0.05, augment="shift")


def with_options(**changes: object) -> TrainingOptions:
    return msgspec.structs.replace(OPTIONS, **changes)


def quiet(_fraction: float, _note: str) -> None: ...


class Run:
    """One run of training and what it told."""

    def __init__(
        self,
        model: PrunedModel,
        data: Dataset,
        folder: Path,
        options: TrainingOptions = OPTIONS,
        initial: Callable[[], PrunedModel] | None = None,
        name: str = "f" * 64,
    ) -> None:
        settings = Settings(epochs=options.epochs, micro_batch=16)
        self.learner = Learner(model, data, options, settings, ())
        checkpoint = Checkpoint(folder / "checkpoint", name)
        self.trainer = Trainer(self.learner, data, options, options.epochs, checkpoint, initial or no_other)
        self.epochs: list[Epoch] = []
        self.warnings: list[str] = []

    def to_the_end(self, report: Callable[[float, str], None] = quiet) -> Position:
        _, position = self.trainer.run(report, self.epochs.append, self.warnings.append)
        return position


def no_other() -> PrunedModel:
    raise AssertionError("training began anew")
