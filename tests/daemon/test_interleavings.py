"""The agent under any order of messages, words of workers, lost connections, full disks, clock jumps, stops and crashes."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconvene_agent.core.census import Census
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import SpecializeSection
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Status, Step
from reconvene_agent.core.messages import MAX_PAYLOAD, OPERATIONS, envelope_of
from reconvene_agent.core.protocol import Done, Failed, Happening, Progress, Ready, Suspended
from reconvene_agent.daemon import events
from reconvene_agent.daemon.commands.book import FORGET_AFTER_S, waits_for
from reconvene_agent.daemon.commands.running import REVISIONS_AHEAD
from reconvene_agent.daemon.events import WorkerSaid
from support.agents import CONFIG, TOPICS, WALL, command_topic, key
from support.promises import args_of
from support.surroundings import Surroundings
from support.values import EPOCH, release

WINDOWS = msgspec.structs.replace(CONFIG.worker, windows=("00:00-00:10", "00:20-23:50"))
GROWING = SpecializeSection(bundle="b", data="d", new_data_share=0.1)
JOBS = ["specialize/1", "specialize/2", "plan/1"]
LABELS = [*JOBS, *(f"{op}/1" for op in OPERATIONS if f"{op}/1" not in JOBS), "cancel/2", "pause/2", "other/1"]
WORDS = [
    *(Ready(1, "", 1), Suspended()),
    *(Progress(step, 0.5) for step in (Step.PLAN, Step.TRAIN)),
    *(Happening("epoch", EPOCH), Done({"x": 1})),
    *(Failed(code, "why") for code in (ErrorCode.NO_DATA, ErrorCode.CANCELED)),
]

offsets = st.none() | st.sampled_from([-60.0, 1.0, 60.0, 600.0])


class World(Surroundings, RuleBasedStateMachine):
    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}
        self.latest = WALL
        """What the clock has shown at most."""
        super().__init__(msgspec.structs.replace(CONFIG, worker=WINDOWS, specialize=GROWING))
        self.post(events.ReleaseRead(msgspec.structs.replace(release(), data=Census(100, 10_000, "here"))))
        self.connect()

    # --- the fleet -------------------------------------------------------------------------------------------------------

    @rule(
        label=st.sampled_from(LABELS),
        args=st.sampled_from([None, None, {}, {"id": "1"}, {"sparsity": 0.5}, {"nonsense": 1}]),
        expires=offsets,
        begins=offsets,
        timeout=st.none() | st.sampled_from([5.0, 100.0]),
    )
    def a_command_is_sent(
        self, label: str, args: dict[str, Any] | None, expires: float | None, begins: float | None, timeout: float | None
    ) -> None:
        if args is None:
            args = args_of(label.split("/", maxsplit=1)[0]) if label != "other/1" else {}
        message: dict[str, Any] = {"status": "init", "args": args}
        for name, offset in (("expires_at", expires), ("not_before", begins)):
            if offset is not None:
                message[name] = self.now.wall + offset
        if timeout is not None:
            message["timeout_s"] = timeout
        self.cleared.discard(label)
        self.sent[label] = msgspec.json.encode(message)
        self.send(command_topic(label), self.sent[label])

    @rule(label=st.sampled_from(JOBS))
    def a_job_is_sent_and_arrives(self, label: str) -> None:
        self.connect(settle=False)
        self.a_command_is_sent(label, {}, None, None, None)
        self.settle()

    @rule(meant=st.sampled_from(["1", "2", None]), number=st.integers(1, 9))
    def a_cancel_is_sent_and_arrives(self, meant: str | None, number: int) -> None:
        self.connect(settle=False)
        self.a_command_is_sent(f"cancel/{number}", {} if meant is None else {"id": meant}, None, None, None)
        self.settle()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_command_is_sent_again(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.sent)))
        self.cleared.discard(label)
        self.send(command_topic(label), self.sent[label])

    @rule(
        label=st.sampled_from(LABELS),
        payload=st.sampled_from([b"", b"", b"{", b"[]", b"newer", b"ended", b"older", b"x" * (MAX_PAYLOAD + 1)]),
    )
    def something_odd_is_sent(self, label: str, payload: bytes) -> None:
        ours = self.journal[label].rev if label in self.journal else 0
        if not payload or payload == b"ended":
            self.cleared.add(label)
        if payload in (b"newer", b"older", b"ended"):
            # An older state than ours cannot be told from an echo of our own, so nobody's view of it is kept.
            rev = ours // 2 if payload == b"older" else ours + 2 * REVISIONS_AHEAD
            status = "successful" if payload == b"ended" else "executing"
            self.cleared |= {label} if payload == b"older" else set()
            payload = msgspec.json.encode({"status": status, "rev": rev, "updated_at": "2000-01-01T00:00:00Z"})
        self.send(command_topic(label), payload)

    @rule()
    def somebody_says_that_we_are_down(self) -> None:
        self.send(TOPICS.health, b'{"status":"down","session":"another"}')

    @precondition(lambda self: self.underway)
    @rule(count=st.integers(1, 5))
    def messages_arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.underway))):
            if self.underway:
                self.deliver()

    @precondition(lambda self: self.tokens)
    @rule()
    def the_broker_acknowledges(self) -> None:
        self.acknowledge()

    @precondition(lambda self: not self.connected)
    @rule(settle=st.booleans())
    def the_connection_begins(self, settle: bool) -> None:
        self.connect(settle)

    @precondition(lambda self: self.connected)
    @rule()
    def the_connection_is_lost(self) -> None:
        self.disconnect()

    # --- the worker ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.worker)
    @rule(word=st.sampled_from(WORDS))
    def the_worker_speaks(self, word: Any) -> None:
        self.say(word)

    @precondition(lambda self: self.worker)
    @rule(returncode=st.sampled_from([0, 1, -9, -11, 143]), broken=st.sampled_from(["", "", "rubbish"]), memory=st.booleans())
    def the_worker_ends(self, returncode: int, broken: str, memory: bool) -> None:
        self.end(returncode, broken, memory and returncode == -9)

    @precondition(lambda self: self.worker)
    @rule()
    def the_worker_does_as_it_is_asked(self) -> None:
        self.work()

    @precondition(lambda self: self.worker)
    @rule(limit=st.sampled_from([100.0, 200.0]))
    def the_worker_has_its_limits(self, limit: float) -> None:
        assert self.worker is not None
        self.post(events.Launched(self.worker, {"training_memory_mb": limit}))

    @precondition(lambda self: self.worker)
    @rule()
    def the_worker_could_not_be_started(self) -> None:
        failed, self.worker = self.worker, None
        assert failed is not None
        self.post(events.LaunchFailed(failed, ErrorCode.BAD_BUNDLE, "no bundle"))

    @rule(label=st.sampled_from(JOBS), word=st.sampled_from(WORDS))
    def a_worker_of_the_past_speaks(self, label: str, word: Any) -> None:
        if key(label) != self.worker:
            self.post(WorkerSaid(key(label), word))

    # --- the board -------------------------------------------------------------------------------------------------------

    @rule(temperature=st.sampled_from([None, 60.0, 75.0, 90.0]), under_voltage=st.sampled_from([None, False, False, True]))
    def the_board_fares_otherwise(self, temperature: float | None, under_voltage: bool | None) -> None:
        self.fare(temperature, under_voltage)

    @rule(pause=st.booleans())
    def somebody_on_the_board_pauses_or_goes_on(self, pause: bool) -> None:
        self.post(events.PauseAsked(1, pause))

    @rule(files=st.sampled_from([105, 120, 200]))
    def the_data_are_counted(self, files: int) -> None:
        before = set(self.journal)
        self.post(events.DataCounted(Census(files, 100 * files, "here")))
        left = [label for label, command in self.journal.items() if not command.status.terminal and label in JOBS]
        assert not left or set(self.journal) == before, "nothing begins by itself beside a job"

    @rule(later=st.booleans())
    def releases_are_switched(self, later: bool) -> None:
        self.switches_at_once = not later
        for event in self.switched():
            self.post(event)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 120.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(seconds=st.sampled_from([-1e9, -3600.0, 3600.0, 2 * FORGET_AFTER_S]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.latest = max(self.latest, self.now.wall)
        if self.now.wall + seconds > 0:
            self.now = Now(self.now.wall + seconds, self.now.mono, self.now.synchronized)

    @rule(synchronized=st.booleans())
    def the_clock_is_trusted_or_not(self, synchronized: bool) -> None:
        self.now = Now(self.now.wall, self.now.mono, synchronized)

    @rule(full=st.booleans())
    def the_disk_fills_or_empties(self, full: bool) -> None:
        self.fill_disk(full)

    # --- the process -----------------------------------------------------------------------------------------------------

    @rule()
    def it_is_told_to_stop(self) -> None:
        self.post(events.StopAsked())

    @rule()
    def it_crashes(self) -> None:
        self.start()

    @rule(cut=st.integers(0, 8))
    def it_will_crash_soon(self, cut: int) -> None:
        self.cut = cut

    # --- what must hold --------------------------------------------------------------------------------------------------

    @invariant()
    def it_always_wants_to_wake_up_again(self) -> None:
        assert self.agent.due(self.now) < self.now.mono + 1000.0

    @invariant()
    def nothing_goes_on_on_a_board_that_must_not_work(self) -> None:
        hot = self.strain.temperature_c is not None and self.strain.temperature_c > 80.0
        assert self.worker is None or self.asked or not (hot or self.strain.under_voltage or self.ordered_by)

    @invariant()
    def one_runs_and_who_waits_says_for_what(self) -> None:
        jobs = [
            command for command in self.journal.values() if OPERATIONS[command.op].is_job and command.label not in self.excused
        ]
        assert len([command for command in jobs if command.status is Status.EXECUTING]) <= 1
        for command in jobs:
            if (
                command.status is Status.SCHEDULED
                and self.worker is not None
                and not self.full
                and command.updated_at < self.now.wall
            ):
                assert command.reason or waits_for(envelope_of(command), self.now)

    @invariant()
    def it_can_tell_its_status(self) -> None:
        assert msgspec.json.encode(self.agent.status(self.now))

    def teardown(self) -> None:
        self.now = Now(max(self.now.wall, self.latest), self.now.mono, True)
        self.wind_up()


TestInterleavings = World.TestCase
LONG = {"max_examples": 200, "stateful_step_count": 40, "report_multiple_bugs": False}
TestInterleavings.settings = settings(settings.get_profile("repeatable"), **LONG)
