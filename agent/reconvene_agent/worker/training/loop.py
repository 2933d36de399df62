"""The training loop: SGD with momentum under OneCycle; masks hold; every random choice follows from seed and step.

So training can stop after any step and go on from a checkpoint as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data.dataset import Dataset, Part
from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.reconvene import masks
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.augment import augment
from reconvene_agent.worker.training.checkpoint import Checkpoint, Position
from reconvene_agent.worker.training.schedule import one_cycle

MOMENTUM = 0.9
EVALUATION_BATCH = 256

Report = Callable[[float, str], None]


class Interrupted(Exception):  # noqa: N818 - not an error
    """Raised by a report when the run is to stop, with its ``reason``: the loop saves a checkpoint and lets it pass."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Epoch:
    """Figures of one finished epoch; ``loss`` is the mean over its training inputs seen in this process."""

    number: int
    loss: float
    accuracy: float
    learning_rate: float

    def document(self) -> dict[str, Any]:
        return {
            "epoch": self.number,
            "loss": round(self.loss, 5),
            "accuracy": round(self.accuracy, 5),
            "learning_rate": round(self.learning_rate, 7),
        }


class Trainer:
    """Trains one pruned model on one dataset."""

    def __init__(self, pruned: PrunedModel, data: Dataset, options: TrainingOptions, batch: int, checkpoint: Checkpoint) -> None:
        self._model = pruned.module
        self._masks = pruned.masks
        self._data = data
        self._options = options
        self._batch = min(batch, len(data.train))
        # A last batch of one has no variance to normalise by, so it is left out.
        full, rest = divmod(len(data.train), self._batch)
        self._steps_per_epoch = full + (1 if rest > 1 else 0)
        self._total = self._steps_per_epoch * options.epochs
        self._checkpoint = checkpoint
        self._optimizer = torch.optim.SGD(
            self._model.parameters(),
            lr=options.learning_rate,
            momentum=MOMENTUM,
            weight_decay=options.weight_decay,
            nesterov=True,
        )

    def run(self, report: Report, on_epoch: Callable[[Epoch], None]) -> Position:
        """Train to the end, from the checkpoint if there is one; return the position reached.

        Raises:
            Interrupted: ``report`` raised it; the checkpoint holds every step that was done.
            AgentError: DIVERGED when the loss is no number any more, NO_DISK when a checkpoint cannot be stored.
        """
        position = self._checkpoint.restore(self._model, self._optimizer)
        masks.apply(self._model, self._masks)
        started, spent = time.monotonic(), position.seconds
        step = position.step
        try:
            while step < self._total:
                epoch, first = divmod(step, self._steps_per_epoch)
                order = torch.randperm(len(self._data.train), generator=generator(self._options.seed, f"order:{epoch}"))
                losses: list[float] = []
                for index in range(first, self._steps_per_epoch):
                    report(step / self._total, f"epoch {epoch + 1} of {self._options.epochs}")
                    chosen = order[index * self._batch : (index + 1) * self._batch]
                    losses.append(self._step(step, chosen))
                    step += 1
                self._checkpoint.save(self._model, self._optimizer, Position(step, spent + time.monotonic() - started))
                rate = one_cycle(step - 1, self._total, self._options.learning_rate)
                right = accuracy(self._model, self._data, self._data.validation, self._while_evaluating(report, step))
                on_epoch(Epoch(epoch + 1, sum(losses) / len(losses), right, rate))
        except Interrupted:
            self._checkpoint.save(self._model, self._optimizer, Position(step, spent + time.monotonic() - started))
            raise
        self._model.eval()
        return Position(step, spent + time.monotonic() - started)

    def _while_evaluating(self, report: Report, step: int) -> Callable[[float], None]:
        def pass_on(_share: float) -> None:
            report(step / self._total, f"evaluating epoch {step // self._steps_per_epoch} of {self._options.epochs}")

        return pass_on

    @property
    def batch(self) -> int:
        """Inputs per step: what was asked for, or all there are."""
        return self._batch

    @property
    def images(self) -> int:
        """Training inputs, of whatever kind, that the whole run works through, epochs counted."""
        full, rest = divmod(len(self._data.train), self._batch)
        return self._options.epochs * (full * self._batch + (rest if rest > 1 else 0))

    def _step(self, step: int, chosen: Tensor) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = one_cycle(step, self._total, self._options.learning_rate)
        numbers = chosen.numpy()
        raw = torch.from_numpy(self._data.train.inputs[numbers])
        raw = augment(raw, self._options.augment, generator(self._options.seed, f"augment:{step}"))
        self._model.train()
        logits = self._model(torch.from_numpy(self._data.normalized(raw.numpy())))
        loss = functional.cross_entropy(logits, torch.from_numpy(self._data.train.classes[numbers]))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        masks.apply(self._model, self._masks)
        value = loss.item()
        if not torch.isfinite(loss):
            raise AgentError(
                f"training diverged at step {step + 1}: the loss is no number any more; lower learning_rate", ErrorCode.DIVERGED
            )
        return value


def accuracy(model: nn.Module, data: Dataset, part: Part, report: Callable[[float], None]) -> float:
    """Return the share of a part's inputs (0 to 1) that the model classifies rightly; leaves the model in evaluation mode.

    ``report`` hears the share of inputs done before each batch, since on a small board many of them take long.
    """
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(part), EVALUATION_BATCH):
            report(start / len(part))
            chosen = slice(start, start + EVALUATION_BATCH)
            logits = model(torch.from_numpy(data.normalized(part.inputs[chosen])))
            right += int((logits.argmax(1) == torch.from_numpy(part.classes[chosen])).sum())
    return right / len(part)
