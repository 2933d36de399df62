from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reconvene_agent.core.budget import BudgetLimits, Limit
from reconvene_agent.core.config import Config, SpecializeSection
from reconvene_agent.core.messages import PlanArgs, SpecializeArgs, decode_args
from reconvene_agent.core.options import MethodOptions, TrainingOptions
from reconvene_agent.core.protocol import Scoring
from reconvene_agent.core.requests import Board, resolve_budget, runtime
from support.values import device, profile

BUNDLE, DATA, WORK, MODELS = (Path(name) for name in ("/b", "/d", "/w", "/m"))


@pytest.mark.parametrize(("wanted", "cores", "threads"), [(0, 4, 4), (2, 4, 2), (8, 4, 4), (3, 1, 1)])
def test_threads_are_those_of_the_profile_as_far_as_there_are_cores(wanted: int, cores: int, threads: int) -> None:
    found = runtime(profile(inference_threads=wanted, training_threads=wanted), device(cores=cores))
    assert (found.inference_threads, found.training_threads) == (threads, threads)


def test_the_command_goes_over_the_configuration_and_that_over_the_profile() -> None:
    ours = msgspec.structs.replace(profile(), budget=BudgetLimits(latency_ms=50.0, memory_share=0.5, model_mb=8.0))
    config = Config(budget=BudgetLimits(latency_ms=20.0, model_mb=4.0))
    found = resolve_budget(ours, config, BudgetLimits(model_mb=2.0), "command", device(available_mb=600.0))
    assert found.latency_ms == Limit(20.0, "configuration")
    assert found.memory_mb == Limit(300.0, "profile some-board: 50% of 600 MiB available")
    assert found.model_mb == Limit(2.0, "command")


def test_what_a_command_leaves_out_comes_from_the_configuration() -> None:
    config = Config(
        specialize=SpecializeSection(bundle="ours", sparsities=(0.5,)),
        method=MethodOptions(average="weighted"),
        training=TrainingOptions(epochs=3),
    )
    args = decode_args("specialize", {"data": "d"}, Board(config, profile(), device()).defaults)
    assert isinstance(args, SpecializeArgs)
    assert (args.bundle, args.data, args.sparsities) == ("ours", "d", (0.5,))
    assert (args.method.average, args.training.epochs) == ("weighted", 3)


def test_names_that_nobody_configured_are_no_defaults() -> None:
    named = {"sparsities", "width_multipliers", "method", "training", "release"}
    assert Board(Config(), profile(), device()).defaults.keys() == named


def test_narrowed_widths_are_rounded_as_the_profile_says() -> None:
    ours = msgspec.structs.replace(profile(), compute=msgspec.structs.replace(profile().compute, width_multiple=8))
    assert runtime(profile(), device()).width_multiple == 1
    assert runtime(ours, device()).width_multiple == 8


@pytest.mark.parametrize(("allowed", "memory_mb"), [(None, 600.0), (400.0, 400.0), (5000.0, 600.0)])
def test_a_criterion_may_use_what_training_may_and_never_more_than_is_available(allowed: float | None, memory_mb: float) -> None:
    board = Board(Config(), profile(), device(available_mb=600.0))
    args = PlanArgs(budget=BudgetLimits() if allowed is None else BudgetLimits(training_memory_mb=allowed))
    assert board.plan_request(BUNDLE, args, "command").scoring == Scoring(memory_mb=memory_mb)
    assert board.plan_request(BUNDLE, args, "command", data=DATA).scoring == Scoring("/d", memory_mb=memory_mb)


def test_a_whole_run_scores_by_the_data_that_it_trains_on() -> None:
    board = Board(Config(), profile(), device())
    request = board.specialize_request(BUNDLE, DATA, WORK, MODELS, SpecializeArgs(), "command")
    assert request.plan.scoring.data == request.data == "/d"


@pytest.mark.parametrize("configured", [64, 16])
def test_the_batch_is_what_is_asked_for_however_many_inputs_of_it_the_board_bears_at_a_time(configured: int) -> None:
    board = Board(Config(training=TrainingOptions(batch=configured)), profile(batch_cap=32), device())
    request = board.plan_request(BUNDLE, PlanArgs(), "command")
    assert (request.batch, request.runtime.batch_cap) == (configured, 32)


def test_a_whole_run_plans_for_the_batch_it_was_asked_to_train_with() -> None:
    board = Board(Config(training=TrainingOptions(batch=4)), profile(), device())
    args = SpecializeArgs(sparsity=0.9, training=TrainingOptions(batch=8))
    request = board.specialize_request(BUNDLE, DATA, WORK, MODELS, args, "command")
    assert (request.plan.batch, request.plan.sparsity, request.training.batch) == (8, 0.9, 8)
    assert (request.plan.bundle, request.data, request.work, request.models) == ("/b", "/d", "/w", "/m")


def test_without_a_sparsity_the_plan_chooses() -> None:
    assert Board(Config(), profile(), device()).plan_request(BUNDLE, PlanArgs(), "command").sparsity is None


@pytest.mark.parametrize(("imposed", "multipliers"), [(1.0, (1.0, 0.5)), (0.7, (0.7,))])
def test_a_width_that_the_method_imposes_leaves_nothing_to_search(imposed: float, multipliers: tuple[float, ...]) -> None:
    args = PlanArgs(width_multipliers=(1.0, 0.5), method=MethodOptions(width_multiplier=imposed))
    assert Board(Config(), profile(), device()).plan_request(BUNDLE, args, "command").width_multipliers == multipliers
