"""Every operation at every moment of a job's life, and every crash on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status, Step
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.protocol import Done, Failed, Progress, Suspended
from reconvene_agent.daemon import events
from support.agents import JOB
from support.surroundings import Surroundings

NEXT = "plan/next"
AT_ONCE = ("cancel", "pause", "resume", "ping")
# Jobs find the line full, changes of the process another one under way; a log half sent is not sent again.
MAY_FAIL = {
    **{op: {"BUSY"} for op, operation in OPERATIONS.items() if operation.is_job},
    **{op: {"BUSY"} for op in ("config_update", "restart")},
    "log_upload": {"INTERRUPTED"},
}


def arrive(world: Surroundings, label: str = JOB, **fields: object) -> None:
    """Send a command and let it arrive."""
    world.command(label, **fields)
    world.settle()


def running(world: Surroundings, step: Step = Step.TRAIN) -> None:
    arrive(world, timeout_s=1000)
    world.say(Progress(step, 0.5))


def waiting_for_its_time(world: Surroundings) -> None:
    arrive(world, not_before=world.now.wall + 300, expires_at=world.now.wall + 900)


def waiting_for_the_clock(world: Surroundings) -> None:
    world.now = Now(world.now.wall, world.now.mono, False)
    arrive(world, expires_at=world.now.wall + 9000)


def waiting_for_the_board(world: Surroundings) -> None:
    world.fare(90.0)
    arrive(world)


def waiting_behind_another(world: Surroundings) -> None:
    arrive(world, "plan/first")
    arrive(world)


def with_one_behind(world: Surroundings) -> None:
    running(world)
    arrive(world, NEXT)


def being_paused(world: Surroundings) -> None:
    running(world)
    world.fare(90.0)


def paused(world: Surroundings) -> None:
    being_paused(world)
    world.work()


def paused_on_command(world: Surroundings) -> None:
    running(world)
    world.post(events.PauseAsked(1, True))
    world.work()


def being_canceled(world: Surroundings) -> None:
    running(world)
    arrive(world, "cancel/before")


def timing_out(world: Surroundings) -> None:
    running(world)
    world.pass_time(1000)


def leaving(world: Surroundings) -> None:
    running(world)
    world.say(Done({}))


def stopping(world: Surroundings) -> None:
    running(world)
    world.post(events.StopAsked())


def silent(world: Surroundings) -> None:
    running(world)
    world.pass_time(world.config.worker.stall_timeout_s)


def disconnected(world: Surroundings) -> None:
    running(world)
    world.disconnect()


def ended_while_disconnected(world: Surroundings) -> None:
    running(world)
    world.disconnect()
    world.work()


def after_a_crash(world: Surroundings) -> None:
    running(world)
    world.start()


def before_the_announcement(world: Surroundings) -> None:
    after_a_crash(world)
    world.connect(settle=False)


def started_again(world: Surroundings) -> None:
    running(world)
    world.end(-9, out_of_memory=True)


def ended(world: Surroundings) -> None:
    running(world)
    world.work()


def failed(world: Surroundings) -> None:
    running(world)
    world.say(Failed(ErrorCode.NO_DATA, "none"))
    world.end()


def switching(world: Surroundings) -> None:
    running(world)
    world.switches_at_once = False
    arrive(world, "rollback/before")


MOMENTS: dict[str, Callable[[Surroundings], None]] = {
    "nothing": lambda _: None,
    **{f"executing {step.value}": lambda world, step=step: running(world, step) for step in Step},  # type: ignore[misc]
    **{
        moment.__name__: moment
        for moment in (
            *(waiting_for_its_time, waiting_for_the_clock, waiting_for_the_board, waiting_behind_another, with_one_behind),
            *(being_paused, paused, paused_on_command, being_canceled, timing_out, leaving, stopping, silent),
            *(disconnected, ended_while_disconnected, after_a_crash, before_the_announcement, started_again),
            *(ended, failed, switching),
        )
    },
}
MESSAGES = {"valid": {}, "late": {"expires_at": 1.0}, "early": {"not_before": 1e10}, "odd": {"timeout_s": -1}}


def at(moment: str) -> Surroundings:
    """Return a world in which the life of the job is at this moment."""
    world = Surroundings()
    world.connect()
    MOMENTS[moment](world)
    return world


def send(world: Surroundings, label: str, **fields: object) -> None:
    """Send a command in such a way that it arrives, whatever state the connection is in."""
    world.command(label, **fields)
    world.connect(settle=False)
    for _ in range(len(world.underway)):
        if world.underway:
            world.deliver()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_has_one_end_at_every_moment(op: str, moment: str) -> None:
    world = at(moment)
    label = f"{op}/new"
    send(world, label)
    known = world.journal.get(label)
    assert op not in AT_ONCE or known is None or known.status.terminal, "it is answered at once"
    world.wind_up()
    end = world.shown(label)
    assert end["status"] in ("successful", "failed")
    assert end["status"] == "successful" or end["error"]["code"] in MAY_FAIL.get(op, ()), "nothing else keeps it from being done"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_job_is_stopped_at_every_moment_by_its_id_and_stays_so_though_the_agent_crashes(moment: str) -> None:
    for crash in (False, True):
        world = at(moment)
        before = world.journal.get(JOB)
        send(world, "cancel/new", args={"id": "1"})
        if crash:
            world.start()
        world.wind_up()
        answer = world.shown("cancel/new")["result"]
        assert answer in ({"canceled": JOB}, {"canceled": None})
        if before is None or before.status.terminal or moment in ("timing_out", "leaving", "silent"):
            assert answer == {"canceled": JOB if moment == "silent" else None}
        else:
            assert answer == {"canceled": JOB}
            assert world.shown(JOB)["error"]["code"] == "CANCELED"


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fields", MESSAGES.values(), ids=MESSAGES.keys())
def test_the_same_id_at_every_moment_starts_nothing_again(moment: str, fields: dict[str, object]) -> None:
    world = at(moment)
    known, runs = world.journal.get(JOB), world.worker
    send(world, JOB, **fields)
    if known is not None:
        assert (world.journal[JOB].digest, world.worker) == (known.digest, runs)
    world.now = Now(max(world.now.wall, 1e10), world.now.mono, True) if fields is MESSAGES["early"] else world.now
    world.wind_up()


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_message_once_more_at_every_moment_is_answered_with_the_state(moment: str) -> None:
    world = at(moment)
    known, runs = world.journal.get(JOB), world.worker
    if known is None:
        return
    fields = {name: value for name, value in known.request.items() if name != "args"}
    world.connect(settle=False)
    world.underway.clear()
    send(world, JOB, **fields)
    assert (world.journal[JOB].status, world.worker) == (known.status, runs)
    world.settle()
    assert world.shown(JOB)["status"] == world.journal[JOB].status.value
    world.wind_up()


# --- crashes --------------------------------------------------------------------------------------------------------------------


def beside_a_job(world: Surroundings, op: str) -> None:
    """One run with everything that can happen: a job, one behind it, and between them the operation."""
    arrive(world)
    world.connect()
    arrive(world, NEXT)
    world.connect()
    if world.worker is not None:
        world.say(Progress(Step.TRAIN, 0.5))
    world.connect()
    arrive(world, f"{op}/new")
    world.connect()
    if world.worker is not None:
        world.work()
    world.pass_time(5)
    world.connect()
    if world.worker is not None:
        world.say(Suspended())
    if world.worker is not None:
        world.end()
    world.wind_up()


def alone(world: Surroundings, op: str) -> None:
    arrive(world, f"{op}/new")
    world.wind_up()


def after_its_time(world: Surroundings, op: str) -> None:
    arrive(world, f"{op}/new", not_before=world.now.wall + 60, expires_at=world.now.wall + 600)
    world.pass_time(60)
    world.wind_up()


@pytest.mark.parametrize("story", [alone, after_its_time, beside_a_job])
@pytest.mark.parametrize("op", OPERATIONS)
def test_a_crash_after_each_effect_leaves_nothing_stuck_and_does_nothing_twice(
    op: str, story: Callable[[Surroundings, str], None]
) -> None:
    def told(cut: int | None) -> Surroundings:
        world = Surroundings()
        world.connect()
        world.cut, world.carried_out = cut, 0
        story(world, op)
        return world

    whole = told(None)
    usual = {label: command.status for label, command in whole.journal.items()}
    assert set(usual.values()) <= {Status.SUCCESSFUL, Status.FAILED}
    for cut in range(whole.carried_out):
        world = told(cut)
        assert world.journal.keys() >= {label for label in usual if label in (JOB, f"{op}/new")}
        end = world.shown(f"{op}/new")
        assert end["status"] in ("successful", "failed"), f"after {cut} effects"
        failed_as_it_may = end["status"] == "failed" and end["error"]["code"] in MAY_FAIL.get(op, ())
        assert end["status"] == "successful" or failed_as_it_may, f"after {cut} effects"
