"""The rehearsal: a few steps on real inputs with a model that is thrown away, to settle how a run trains on this board.

The memory that training takes is estimated, measured and, where it is over its limit, corrected once. What is faster here is
found out, and how many epochs fit into the time that there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from msgspec.structs import replace

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker import memory
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.models.costs import TrainingCosts
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training import guard
from reconvene_agent.worker.training.guard import MIB, Share
from reconvene_agent.worker.training.learner import Learner
from reconvene_agent.worker.training.settings import Device, Settings

FASTER = 1.15
"""By so much has another way to compute to be faster than the plain one; less may be chance."""
WORTHWHILE_S = 300.0
"""Training that is shorter than that is done in the plain way: then its result depends on nothing that is timed."""
AMPLE_MB = 1024.0
"""Where more than this is allowed, it does not matter what lies about."""
MARGIN = 0.9
"""Share of the memory allowed that the first steps may take: later ones take a little more."""
TIMED_INPUTS = 16
TIMED_STEPS = 3
ROUNDS = 2
MEASURED_STEPS = 2
SPARE_TIME = 0.9
"""Share of the time allowed that the epochs may take: boards get warm, and slow down."""


@dataclass(frozen=True)
class Limits:
    """What training may take.

    Attributes:
        base_mb: what the process took when only its libraries were loaded.
        inputs: in memory at most at a time.
        memory_mb: above that; None is without limit.
        minutes: for all epochs; None is without limit.
    """

    base_mb: float
    inputs: int
    memory_mb: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Rehearsed:
    """What came out.

    Attributes:
        estimate_mb, measured_mb: of the settings chosen, above the libraries.
        highest_mb: the most that any settings took that were tried.
        epoch_s: seconds of one epoch, judged.
    """

    settings: Settings
    estimate_mb: float
    measured_mb: float
    highest_mb: float
    epoch_s: float

    def document(self) -> dict[str, Any]:
        chosen = self.settings
        return {
            "epochs": chosen.epochs,
            "micro_batch": chosen.micro_batch,
            "recompute": chosen.recompute,
            "spare": chosen.spare,
            "precision": chosen.precision,
            "channels_last": chosen.channels_last,
            "device": chosen.device,
            "memory_mb": {"estimate": round(self.estimate_mb, 1), "measured": round(self.measured_mb, 1)},
            "epoch_s": round(self.epoch_s, 3),
        }


@dataclass(frozen=True)
class _Measured:
    """The peak of training in MiB above the libraries, the seconds of a step, and those of one held-out input."""

    peak_mb: float
    step_s: float
    judged_s: float


class Rehearsal:
    """Settles how one run trains. ``initial`` returns the model anew; ``cuts`` are where it may be cut to save memory."""

    def __init__(
        self,
        initial: Callable[[], PrunedModel],
        costs: TrainingCosts,
        cuts: Sequence[str],
        data: Dataset,
        options: TrainingOptions,
        limits: Limits,
        check: Callable[[], None],
    ) -> None:
        self._initial = initial
        self._costs = costs
        self._cuts = cuts
        self._data = data
        self._options = options
        self._limits = limits
        self._check = check
        self._batch = min(options.batch, len(data.train))
        self._most = min(self._batch, limits.inputs)
        self._highest_mb = 0.0

    def settle(self, device: Device) -> Rehearsed:
        """Find out what is needed and return it.

        Raises:
            AgentError: NO_MEMORY where training takes more than its limit in any way, INFEASIBLE where not even one epoch fits
                into the time allowed.
        """
        average = self._options.ema > 0
        settings, found = self._within_limit(device, average)
        if self._training_s(found) >= WORTHWHILE_S:
            faster = self._fastest(settings)
            measured = self._measure(faster) if faster != settings else found
            if self._fits(measured) and measured.step_s < found.step_s:
                settings, found = faster, measured
        share = Share(settings.micro_batch, settings.recompute, settings.spare)
        estimate = guard.needed(self._costs, share, average) / MIB
        epoch_s = self._epoch_s(found)
        return Rehearsed(replace(settings, epochs=self._epochs(epoch_s)), estimate, found.peak_mb, self._highest_mb, epoch_s)

    def _within_limit(self, device: Device, average: bool) -> tuple[Settings, _Measured]:
        """Return the plain settings that keep to the limit of memory, corrected once if the estimate was wrong."""
        limit = None if self._limits.memory_mb is None else MARGIN * self._limits.memory_mb
        share = Share(self._most) if limit is None else guard.choose(self._costs, self._most, self._room(limit), average)
        precision = "float32" if self._options.precision == "auto" else self._options.precision
        settings = Settings(self._options.epochs, *share, precision, device=device, tidy=limit is not None and limit < AMPLE_MB)
        found = self._measure(settings)
        if limit is None or self._fits(found):
            return settings, found
        corrected = guard.correct(self._costs, self._most, limit, share, found.peak_mb, average)
        if corrected is not None:
            settings = replace(settings, **corrected._asdict())
            found = self._measure(settings)
        if not self._fits(found):
            raise AgentError(
                f"training takes {found.peak_mb:.0f} MiB with {settings.micro_batch} inputs at a time "
                f"where {self._limits.memory_mb:.0f} are allowed: raise training_memory_mb, or prune more",
                ErrorCode.NO_MEMORY,
            )
        return settings, found

    def _fits(self, found: _Measured) -> bool:
        return self._limits.memory_mb is None or found.peak_mb <= MARGIN * self._limits.memory_mb

    def _epoch_s(self, found: _Measured) -> float:
        return found.step_s * len(self._data.train) / self._batch + found.judged_s * len(self._data.validation)

    def _training_s(self, found: _Measured) -> float:
        """Return how long the run takes: all its epochs, or the time allowed."""
        seconds = self._options.epochs * self._epoch_s(found)
        return seconds if self._limits.minutes is None else min(seconds, 60 * self._limits.minutes)

    def _room(self, limit_mb: float) -> float:
        """Return what is left of the limit beside the data and whatever else the process has come to hold."""
        return max(1.0, limit_mb - (memory.settled_mb() - self._limits.base_mb))

    def _fastest(self, plain: Settings) -> Settings:
        """Return the plain settings, or others that compute clearly faster here."""
        ways = [replace(way, micro_batch=min(way.micro_batch, TIMED_INPUTS)) for way in self._ways(plain)]
        # They take turns, since boards are never quiet, and one at a time, since memory may be short.
        rounds = [[self._step_s(way) for way in ways] for _ in range(ROUNDS)]
        seconds = [min(column) for column in zip(*rounds, strict=True)]
        best = min(range(len(ways)), key=seconds.__getitem__)
        if seconds[best] * FASTER >= seconds[0]:
            best = 0
        return replace(ways[best], micro_batch=plain.micro_batch)

    def _step_s(self, settings: Settings) -> float:
        learner = self._learner(settings)
        chosen = torch.arange(min(len(self._data.train), TIMED_INPUTS))
        return min(self._timed(learner, number, chosen) for number in range(TIMED_STEPS))

    def _ways(self, plain: Settings) -> Iterator[Settings]:
        """Yield the ways to compute, the plain one first."""
        ways = [plain]
        if self._options.precision == "auto" and _has_bfloat16(plain.device):
            ways.append(replace(plain, precision="bfloat16"))
        for way in ways:
            yield way
            if self._data.train.inputs.ndim == 4:
                yield replace(way, channels_last=True)

    def _measure(self, settings: Settings) -> _Measured:
        """Do the first steps of a run, and judge some inputs."""
        memory.settled_mb()
        memory.start_peak()
        device_peak = _start_device_peak(settings.device)
        learner = self._learner(settings)
        chosen = torch.arange(self._batch)
        step_s = min(self._timed(learner, number, chosen) for number in range(MEASURED_STEPS))
        learner.note_best()
        held = self._data.validation.between(0, learner.judged_at_once)
        started = time.perf_counter()
        learner.accuracy(held, lambda _: self._check())
        judged_s = (time.perf_counter() - started) / len(held)
        peak_mb = memory.peak_mb() - self._limits.base_mb + device_peak()
        self._highest_mb = max(self._highest_mb, peak_mb)
        return _Measured(peak_mb, step_s, judged_s)

    def _epochs(self, epoch_s: float) -> int:
        if self._limits.minutes is None:
            return self._options.epochs
        fit = int(SPARE_TIME * 60 * self._limits.minutes / epoch_s)
        if fit < 1:
            raise AgentError(
                f"one epoch takes {epoch_s / 60:.3g} minutes where {self._limits.minutes:.3g} are allowed for all: "
                "raise training_minutes, or prune more",
                ErrorCode.INFEASIBLE,
            )
        return min(self._options.epochs, fit)

    def _learner(self, settings: Settings) -> Learner:
        self._check()
        return Learner(self._initial(), self._data, self._options, settings, self._cuts)

    def _timed(self, learner: Learner, number: int, chosen: torch.Tensor) -> float:
        self._check()
        started = time.perf_counter()
        learner.step(number, chosen, self._options.learning_rate, self._check)
        return time.perf_counter() - started


def _has_bfloat16(device: Device) -> bool:
    """Whether the processor computes with bfloat16 itself: emulated it is always slower."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _start_device_peak(device: Device) -> Callable[[], float]:
    """Return what tells the MiB that a GPU's memory has held at most from now on; a CPU has none."""
    if device == "cpu":
        return lambda: 0.0
    torch.cuda.reset_peak_memory_stats()
    return lambda: torch.cuda.max_memory_allocated() / MIB
