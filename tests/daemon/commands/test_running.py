from __future__ import annotations

import msgspec
import pytest

from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import WorkerSection
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status, Step
from reconvene_agent.core.protocol import Done, Failed, Happening, Progress, Ready, Suspended, Upward
from reconvene_agent.daemon.commands.running import PUBLISH_EVERY_S, RunningJob, StopReason
from reconvene_agent.daemon.events import WorkerEnded
from reconvene_agent.daemon.worker.supervision import Action, Supervision
from support.agents import WALL

LIMITS = WorkerSection(start_timeout_s=10.0, stall_timeout_s=20.0, stop_timeout_s=5.0)


def at(mono: float) -> Now:
    return Now(WALL + mono, mono)


def job(op: str = "specialize", deadline: float | None = None) -> RunningJob:
    command = Command(op, "1", {}, "", WALL, WALL, Status.EXECUTING, rev=1, attempt=1)
    return RunningJob(command, Supervision(LIMITS, 0.0), deadline, 0.0)


def ended(returncode: int = 0) -> WorkerEnded:
    return WorkerEnded("k", returncode, "", False, "")


def test_a_new_step_is_journaled_and_published() -> None:
    run = job()
    assert run.hear(Progress(Step.PLAN, 0.0), at(1)) == (True, True)
    assert run.hear(Progress(Step.PLAN, 0.1), at(1)) == (False, False)
    assert run.hear(Progress(Step.PLAN, 0.2), at(1 + PUBLISH_EVERY_S)) == (False, True)
    assert run.hear(Progress(Step.TRAIN, 0.0), at(1 + PUBLISH_EVERY_S)) == (True, True)


@pytest.mark.parametrize("message", [Ready(1, "", 1), Happening("epoch", {}), Done({}), Suspended()])
def test_other_words_are_neither(message: Upward) -> None:
    assert job().hear(message, at(1)) == (False, False)


@pytest.mark.parametrize(
    ("op", "step", "fraction", "progress"),
    [
        ("specialize", Step.PROBE, 0.0, 0.0),
        ("specialize", Step.TRAIN, 0.5, 0.535),
        ("specialize", Step.PROMOTE, 1.0, 1.0),
        ("plan", Step.PLAN, 0.25, 0.25),
    ],
)
def test_the_share_of_a_step_in_the_whole(op: str, step: Step, fraction: float, progress: float) -> None:
    run = job(op)
    run.hear(Progress(step, fraction, "word"), at(1))
    assert run.command.progress == pytest.approx(progress)
    assert (run.command.step, run.note) == (step, "word")


def test_progress_never_goes_back() -> None:
    run = job()
    run.hear(Progress(Step.TRAIN, 0.5), at(1))
    run.hear(Progress(Step.PROBE, 0.0), at(2))
    assert run.command.progress == pytest.approx(0.535)


def test_a_deadline_is_due_and_passes_once_the_worker_is_told() -> None:
    run = job(deadline=8.0)
    assert run.due == 8.0
    assert not run.overdue(7.9)
    assert run.overdue(8.0)
    assert run.stop("timed out", 8.0)
    assert not run.overdue(9.0)
    assert run.due == 13.0


def test_a_deadline_means_nothing_to_a_worker_that_has_finished() -> None:
    run = job(deadline=8.0)
    run.hear(Done({}), at(7))
    assert not run.overdue(9.0)
    assert run.due == 12.0


REASONS: list[StopReason] = ["canceled", "timed out", "suspended", "paused"]


@pytest.mark.parametrize("first", REASONS)
@pytest.mark.parametrize("second", REASONS)
def test_a_worker_is_stopped_once_but_a_cancel_outweighs_a_suspension(first: StopReason, second: StopReason) -> None:
    run = job()
    assert run.stop(first, 1.0)
    outweighs = first in ("suspended", "paused") and second == "canceled"
    assert run.stop(second, 2.0) is outweighs
    assert run.stop_reason == (second if outweighs else first)
    assert run.due == 6.0, "it is given no more time"


@pytest.mark.parametrize("outcome", [Done({}), Failed(ErrorCode.BAD_DATA, "")])
def test_a_worker_that_has_finished_is_not_stopped(outcome: Upward) -> None:
    run = job()
    run.hear(outcome, at(1))
    assert not run.stop("canceled", 2.0)
    assert run.stop_reason == ""


CONCLUSIONS: list[tuple[Upward | None, StopReason, Status, ErrorCode | None]] = [
    (Done({"x": 1}), "", Status.SUCCESSFUL, None),
    (Failed(ErrorCode.BAD_DATA, "d"), "", Status.FAILED, ErrorCode.BAD_DATA),
    (None, "", Status.FAILED, ErrorCode.INTERNAL),
    (None, "canceled", Status.FAILED, ErrorCode.CANCELED),
    (None, "timed out", Status.FAILED, ErrorCode.TIMED_OUT),
    (None, "suspended", Status.EXECUTING, None),
    (Done({"x": 1}), "canceled", Status.SUCCESSFUL, None),
    (Done({"x": 1}), "suspended", Status.SUCCESSFUL, None),
    (Failed(ErrorCode.CANCELED, "c"), "canceled", Status.FAILED, ErrorCode.CANCELED),
    (Failed(ErrorCode.CANCELED, "c"), "timed out", Status.FAILED, ErrorCode.TIMED_OUT),
    (Failed(ErrorCode.INTERNAL, "i"), "suspended", Status.EXECUTING, None),
    (Suspended(), "suspended", Status.EXECUTING, None),
    (None, "paused", Status.EXECUTING, None),
    (Suspended(), "paused", Status.EXECUTING, None),
    (Failed(ErrorCode.INTERNAL, "i"), "paused", Status.EXECUTING, None),
    (Done({"x": 1}), "paused", Status.SUCCESSFUL, None),
]


@pytest.mark.parametrize(("outcome", "reason", "status", "code"), CONCLUSIONS)
def test_how_it_ends(outcome: Upward | None, reason: StopReason, status: Status, code: ErrorCode | None) -> None:
    run = job()
    if reason:
        run.stop(reason, 1.0)
    if outcome is not None:
        run.hear(outcome, at(2))
    command = run.conclude(ended(), at(3))
    assert command.status is status
    assert (command.error.code if command.error else None) is code
    assert command.attempt == (0 if status is Status.EXECUTING else 1)
    assert command.rev > 1


def test_the_supervisions_verdict_reaches_the_end() -> None:
    run = job()
    assert run.step(10.0) is Action.TERMINATE
    command = run.conclude(ended(-15), at(11))
    assert command.error is not None
    assert command.error.code is ErrorCode.TIMED_OUT


def test_who_stops_the_worker_from_outside_costs_an_attempt() -> None:
    for outcome, returncode in ((Suspended(), 0), (None, 143)):
        run = job()
        if outcome is not None:
            run.hear(outcome, at(1))
        command = run.conclude(ended(returncode), at(2))
        assert (command.status, command.attempt) == (Status.EXECUTING, 1)


def test_the_kernels_kill_is_forgiven_once_within_less_memory() -> None:
    run = job()
    run.command = msgspec.structs.replace(run.command, limits_mb={"training_memory_mb": 100.0}, progress=0.5)
    killed = WorkerEnded("k", -9, "", True, "")
    again = run.conclude(killed, at(1))
    assert (again.status, again.attempt, again.progress) == (Status.EXECUTING, 0, 0.0)
    assert again.ceilings_mb == {"training_memory_mb": pytest.approx(70.0)}
    run = job()
    run.command = msgspec.structs.replace(again, attempt=1)
    last = run.conclude(killed, at(2))
    assert last.error is not None
    assert last.error.code is ErrorCode.OOM_KILLED
