from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker import memory
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.models.costs import TrainingCosts
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training import guard, rehearsal
from reconvene_agent.worker.training.guard import MIB, Share
from reconvene_agent.worker.training.learner import Learner
from reconvene_agent.worker.training.rehearsal import Limits, Rehearsal, Rehearsed
from reconvene_agent.worker.training.settings import Settings

BATCH = 64
BASE = 100.0


class Stage:
    """A board whose memory and speed are made up: what a step takes is told by its settings."""

    def __init__(self, fresh: Callable[[], PrunedModel], data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fresh, self.data = fresh, data
        self.costs = TrainingCosts(weights=MIB, masks=0, saved=MIB, recomputed=MIB // 4)
        self.excess = 1.0
        self.slowness: dict[str, float] = {}
        self.checks = 0
        self.made: list[Settings] = []
        self._now = 0.0
        monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: self._now)
        monkeypatch.setattr(rehearsal, "_has_bfloat16", lambda _: True)
        monkeypatch.setattr(rehearsal, "WORTHWHILE_S", 0.0)
        monkeypatch.setattr(memory, "settled_mb", lambda: BASE)
        monkeypatch.setattr(memory, "peak_mb", lambda: BASE + self.excess * self.estimate(self.made[-1]))
        real = Learner.step

        def step(learner: Learner, number: int, chosen: torch.Tensor, *rest: object) -> float:
            used = learner._settings
            self._now += len(chosen) * self.slowness.get(f"{used.precision} {used.channels_last}", 0.01)
            return real(learner, number, chosen, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(Learner, "step", step)
        init = Learner.__init__

        def made(learner: Learner, pruned: PrunedModel, *rest: object) -> None:
            self.made.append(rest[2])  # type: ignore[arg-type]
            init(learner, pruned, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(Learner, "__init__", made)

    def estimate(self, settings: Settings) -> float:
        return self.needed(Share(settings.micro_batch, settings.recompute, settings.spare))

    def needed(self, share: Share) -> float:
        return guard.needed(self.costs, share) / MIB

    def settle(self, limit: float | None = None, minutes: float | None = None, inputs: int = 512, **options: object) -> Rehearsed:
        wanted = TrainingOptions(**{"epochs": 10, "batch": BATCH, **options})  # type: ignore[arg-type]
        limits = Limits(BASE, inputs, None if limit is None else 1.0001 * limit / rehearsal.MARGIN, minutes)
        cuts = self.fresh().design.cuts()
        return Rehearsal(self.fresh, self.costs, cuts, self.data, wanted, limits, self.check).settle("cpu")

    def check(self) -> None:
        self.checks += 1


@pytest.fixture
def stage(fresh: Callable[[], PrunedModel], data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(fresh, data, monkeypatch)


def test_without_limits_the_whole_batch_is_taken_and_every_epoch_done(stage: Stage) -> None:
    found = stage.settle()
    assert found.settings == Settings(epochs=10, micro_batch=BATCH)
    assert found.measured_mb == pytest.approx(found.estimate_mb) == stage.estimate(found.settings)
    assert stage.checks > 5


def test_no_more_inputs_are_taken_at_a_time_than_the_profile_allows(stage: Stage) -> None:
    assert stage.settle(inputs=16).settings.micro_batch == 16


def test_the_estimate_decides_how_many_inputs_are_taken_at_a_time(stage: Stage) -> None:
    for share in (Share(64), Share(32), Share(8), Share(8, spare=True), Share(8, recompute=True, spare=True)):
        limit = stage.needed(share)
        found = stage.settle(limit)
        assert (found.settings.micro_batch, found.settings.recompute, found.settings.spare) == share
        assert found.measured_mb <= limit


def test_what_is_measured_over_the_limit_is_corrected_once(stage: Stage) -> None:
    limit = stage.needed(Share(64))
    stage.excess = 1.6
    found = stage.settle(limit)
    assert found.settings != Settings(epochs=10, micro_batch=64)
    assert found.estimate_mb < found.measured_mb <= limit


def test_what_takes_too_much_in_any_way_is_told_with_the_figures(stage: Stage) -> None:
    limit = stage.needed(Share(8, recompute=True, spare=True))
    stage.excess = 3.0
    with pytest.raises(AgentError, match=r"takes \d+ MiB with 8 inputs at a time where \d+ are allowed: raise") as caught:
        stage.settle(limit)
    assert caught.value.code is ErrorCode.NO_MEMORY


@pytest.mark.parametrize(
    ("slowness", "precision", "channels_last"),
    [
        ({}, "float32", False),
        ({"float32 True": 0.009}, "float32", False),  # by a tenth: that may be chance
        ({"float32 True": 0.008}, "float32", True),
        ({"float32 True": 0.008, "bfloat16 False": 0.005}, "bfloat16", False),
        ({"bfloat16 True": 0.004, "bfloat16 False": 0.005}, "bfloat16", True),
        ({"bfloat16 True": 0.03, "bfloat16 False": 0.03}, "float32", False),
    ],
)
def test_what_is_clearly_faster_here_is_taken(
    stage: Stage, slowness: dict[str, float], precision: str, channels_last: bool
) -> None:
    stage.slowness = slowness
    found = stage.settle().settings
    assert (found.precision, found.channels_last) == (precision, channels_last)


def test_training_that_is_short_anyway_is_done_in_the_plain_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.slowness = {"float32 True": 0.001}
    for worthwhile, channels_last in ((10 * 150 * 0.0099, True), (10 * 150 * 0.0101, False)):
        monkeypatch.setattr(rehearsal, "WORTHWHILE_S", worthwhile)
        assert stage.settle().settings.channels_last is channels_last
    monkeypatch.setattr(rehearsal, "WORTHWHILE_S", 6.0)
    for minutes, channels_last in ((0.11, True), (0.09, False)):
        assert stage.settle(minutes=minutes).settings.channels_last is channels_last


def test_what_is_faster_but_takes_too_much_memory_is_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.slowness = {"float32 True": 0.001}
    monkeypatch.setattr(memory, "peak_mb", lambda: BASE + stage.estimate(stage.made[-1]) * (1 + stage.made[-1].channels_last))
    found = stage.settle(stage.needed(Share(64)))
    assert (found.settings.channels_last, found.settings.micro_batch) == (False, 64)


def test_a_precision_that_is_asked_for_is_kept_to(stage: Stage) -> None:
    stage.slowness = {"bfloat16 False": 0.001, "bfloat16 True": 0.001}
    assert stage.settle(precision="float32").settings.precision == "float32"
    assert {settings.precision for settings in stage.made} == {"float32"}
    stage.slowness = {"bfloat16 False": 0.02, "bfloat16 True": 0.03}
    assert stage.settle(precision="bfloat16").settings.precision == "bfloat16"


def test_the_time_allowed_decides_how_many_epochs_there_are(stage: Stage) -> None:
    epoch_s = 150 * 0.01  # judging takes no time here
    assert stage.settle(minutes=4.5 * epoch_s / 60 / rehearsal.SPARE_TIME).settings.epochs == 4
    assert stage.settle(minutes=60.0).settings.epochs == 10
    assert stage.settle().epoch_s == pytest.approx(epoch_s)


def test_less_time_than_one_epoch_takes_is_told(stage: Stage) -> None:
    with pytest.raises(AgentError, match=r"one epoch takes 0\.025 minutes where 0\.02 are allowed for all: raise") as caught:
        stage.settle(minutes=0.02)
    assert caught.value.code is ErrorCode.INFEASIBLE


def test_it_can_be_stopped_at_any_of_its_steps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):  # noqa: N818 - a reason, not an error
        pass

    stage.settle()
    for place in range(stage.checks):
        left = iter(range(place))

        def check(left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Stop

        monkeypatch.setattr(stage, "check", check)
        with pytest.raises(Stop):
            stage.settle()


def test_what_came_out_is_told_and_kept(stage: Stage) -> None:
    found = stage.settle(limit=1000.0)
    document = found.document()
    assert list(document["memory_mb"]) == ["estimate", "measured"]
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(found)), Rehearsed) == found


@pytest.mark.slow
@pytest.mark.parametrize("limit", [60.0, 24.0])
def test_a_real_limit_holds_as_peak_memory_while_it_trains(fresh: Callable[[], PrunedModel], data: Dataset, limit: float) -> None:
    chosen = torch.arange(BATCH)
    options = TrainingOptions(batch=BATCH, augment="shift")
    Learner(fresh(), data, options, Settings(1, 8), ()).step(0, chosen, 0.05, lambda: None)  # loads what is loaded but once
    base = memory.settled_mb()
    cuts, costs = fresh().design.cuts(), fresh().design.costs().training
    found = Rehearsal(fresh, costs, cuts, data, options, Limits(base, 512, limit), lambda: None).settle("cpu")
    learner = Learner(fresh(), data, options, found.settings, cuts)
    memory.start_peak()
    for number in range(5):
        learner.step(number, chosen, 0.05, lambda: None)
    assert memory.peak_mb() - base <= limit
