"""The rollout as a state machine: whatever devices answer, whenever we are stopped, none is commanded when it must not be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconvene_agent.cli.fleet.rollout import FORMAT, Fate, Order, Record, Rollout, Send, Share, TakeBack, Target, share
from reconvene_agent.core.clock import rfc3339

NOW = 1767225600.0
TIMEOUT_S = 100.0


def record(count: int, canary: str = "1", batch: str = "2", abort_over: str = "100%") -> Record:
    order = Order("te", "plan", "r1", {}, "me", share(canary), share(batch), share(abort_over), TIMEOUT_S)
    return Record(FORMAT, order, [Target(f"b{number}") for number in range(count)])


def compose(device: str, now: float) -> str:
    return f"{device} {rfc3339(now)}"


def reply(status: str, issued: float, **fields: Any) -> dict[str, Any]:
    return {"status": status, "rev": 2, "issued_at": rfc3339(issued), **fields}


def sent(effects: list[Any]) -> list[str]:
    return [effect.device for effect in effects if isinstance(effect, Send)]


# --- shares ------------------------------------------------------------------------------------------------------------------


@given(total=st.integers(1, 10_000), number=st.integers(0, 100))
def test_a_share_is_at_least_one_device_and_at_most_all(total: int, number: int) -> None:
    for given_share in (Share(number, True), Share(number, False)):
        assert 1 <= given_share.of(total) <= total


@pytest.mark.parametrize(
    ("text", "total", "count"), [("5%", 1000, 50), ("5%", 10, 1), ("20%", 11, 3), ("7", 100, 7), ("7%", 100, 7)]
)
def test_shares(text: str, total: int, count: int) -> None:
    assert share(text).of(total) == count
    assert str(share(text)) == text


@pytest.mark.parametrize("text", ["", "%", "x", "-1", "101%", "nan%", "1.5", "1e3", "inf%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        share(text)


def test_as_many_as_the_limit_may_fail_and_not_one_more() -> None:
    assert not share("10%").exceeded(1, 10)
    assert share("10%").exceeded(2, 10)
    assert not share("3").exceeded(3, 4)
    assert share("0").exceeded(1, 1000)


# --- one course --------------------------------------------------------------------------------------------------------------


def test_waves_follow_each_other_as_devices_end() -> None:
    rollout = Rollout(record(5), compose)
    assert sent(rollout.step(NOW)) == ["b0"]
    assert rollout.step(NOW + 1) == []
    rollout.heard("b0", reply("executing", NOW))
    assert rollout.step(NOW + 1) == []
    rollout.heard("b0", reply("successful", NOW))
    assert sent(rollout.step(NOW + 2)) == ["b1", "b2"]
    rollout.heard("b1", reply("successful", NOW + 2))
    assert sent(rollout.step(NOW + 3)) == []
    rollout.heard("b2", reply("failed", NOW + 2, error={"code": "NO_DATA"}, reason="none"))
    assert sent(rollout.step(NOW + 4)) == ["b3", "b4"]
    assert [target.wave for target in rollout.record.targets] == [1, 2, 2, 3, 3]
    failed = rollout.record.targets[2]
    assert (failed.fate, failed.code, failed.detail) == (Fate.FAILED, "NO_DATA", "none")


def test_a_canary_that_fails_stops_all() -> None:
    rollout = Rollout(record(100, abort_over="10%"), compose)
    rollout.step(NOW)
    rollout.heard("b0", reply("failed", NOW))
    assert sent(rollout.step(NOW + 1)) == []
    assert rollout.ended
    assert rollout.record.aborted == "1 of 1 device failed, more than 10%"


def test_it_stops_in_the_middle_of_a_wave_that_cannot_turn_out_well_any_more() -> None:
    rollout = Rollout(record(20, canary="10", abort_over="20%"), compose)
    rollout.step(NOW)
    for number in range(3):
        assert not rollout.ended
        rollout.heard(f"b{number}", reply("failed", NOW))
        rollout.step(NOW)
    assert rollout.ended
    assert rollout.counts["sent"] + rollout.counts["sending"] == 7


def test_a_device_that_never_answers_is_late_and_its_command_is_taken_back() -> None:
    rollout = Rollout(record(3, canary="2"), compose)
    rollout.step(NOW)
    rollout.heard("b1", reply("executing", NOW))
    assert TakeBack("b0") not in rollout.step(NOW + TIMEOUT_S - 1)
    effects = rollout.step(NOW + TIMEOUT_S)
    assert TakeBack("b0") in effects
    assert TakeBack("b1") not in effects, "it has begun: it may go on"
    assert rollout.record.targets[0].detail == "no answer within 100 s"
    rollout.heard("b1", reply("successful", NOW))
    assert rollout.counts["silent"] == 1, "better late than never"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"status": "successful", "rev": 2},
        reply("successful", NOW - 1),
        {"status": "successful", "issued_at": rfc3339(NOW)},
        reply("nonsense", NOW),
    ],
    ids=str,
)
def test_what_is_no_answer_to_ours_is_ignored(document: dict[str, Any]) -> None:
    rollout = Rollout(record(1), compose)
    rollout.step(NOW)
    rollout.heard("b0", document)
    rollout.heard("stranger", reply("failed", NOW))
    assert not rollout.ended


def test_a_command_that_the_broker_has_is_not_sent_again() -> None:
    first = Rollout(record(3, canary="3"), compose)
    first.step(NOW)
    first.acknowledged("b0")
    resumed = Rollout(msgspec.json.decode(msgspec.json.encode(first.record), type=Record), compose)
    resumed.heard("b1", {"status": "init", "issued_at": rfc3339(NOW)})  # it lies on the broker as we sent it
    assert resumed.unsure() == [Send("b2", compose("b2", NOW))], "to the letter the same"


# --- any course --------------------------------------------------------------------------------------------------------------


class Fleet(RuleBasedStateMachine):
    """A rollout to devices that answer as they like, driven by a controller that is killed again and again.

    ``broker`` is what the broker has of each device's command; ``stored`` what the disk has of the record.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count, self.canary, self.batch, self.limit = 9, 2, 3, Share(30, True)
        self.stored = msgspec.json.encode(record(self.count, "2", "3", "30%"))
        self.broker: dict[str, str] = {}
        self.ran: dict[str, set[str]] = {}
        self.publications: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.now = NOW
        self.rollout = self.load()

    def load(self) -> Rollout:
        return Rollout(msgspec.json.decode(self.stored, type=Record), compose)

    def do(self, effects: list[Any], until: int | None = None) -> None:
        """Store, then do the effects; only the first ``until`` where we are killed meanwhile."""
        self.stored = msgspec.json.encode(self.rollout.record)
        for effect in effects[:until]:
            if isinstance(effect, Send):
                self.broker[effect.device] = effect.payload
                self.publications[effect.device] = self.publications.get(effect.device, 0) + 1
                self.ran.setdefault(effect.device, set()).add(effect.payload)
            elif isinstance(effect, TakeBack):
                self.broker.pop(effect.device, None)

    @rule(seconds=st.sampled_from((1.0, 60.0, TIMEOUT_S)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.rollout.step(self.now))

    @rule(number=st.integers(0, 8), status=st.sampled_from(("scheduled", "executing", "successful", "successful", "failed")))
    def a_device_answers(self, number: int, status: str) -> None:
        device = f"b{number}"
        if device not in self.broker:
            return
        status = self.ends.get(device, status)  # an end is an end
        if status in ("successful", "failed"):
            self.ends[device] = status
        issued = self.broker[device].partition(" ")[2]
        self.rollout.heard(device, {"status": status, "rev": 1, "issued_at": issued})
        self.do(self.rollout.step(self.now))

    @rule(number=st.integers(0, 8))
    def the_broker_acknowledges(self, number: int) -> None:
        if f"b{number}" in self.broker:
            self.rollout.acknowledged(f"b{number}")

    @rule(until=st.integers(0, 4))
    def we_are_killed_while_sending(self, until: int) -> None:
        self.do(self.rollout.step(self.now), until)
        self.we_go_on()

    @rule()
    def we_are_killed(self) -> None:
        self.we_go_on()

    def we_go_on(self) -> None:
        """Begin anew with what the disk has; hear what the broker retains; send what it does not have."""
        self.rollout = self.load()
        for device, payload in self.broker.items():
            issued = payload.partition(" ")[2]
            end = self.ends.get(device)
            document = {"status": end, "rev": 1, "issued_at": issued} if end else {"status": "init", "issued_at": issued}
            self.rollout.heard(device, document)
        self.do(self.rollout.unsure())

    @precondition(lambda self: not self.rollout.ended)
    @rule()
    def all_answer_in_the_end(self) -> None:
        for _ in range(2 * self.count):
            for number in range(self.count):
                self.a_device_answers(number, "successful")
            self.do(self.rollout.unsure())
            self.time_passes(TIMEOUT_S)
        assert self.rollout.ended

    @invariant()
    def no_device_gets_two_commands(self) -> None:
        assert all(len(payloads) == 1 for payloads in self.ran.values())
        assert all(count == 1 for count in self.publications.values())

    @invariant()
    def no_wave_begins_before_the_one_before_has_ended(self) -> None:
        targets = self.rollout.record.targets
        open_waves = {target.wave for target in targets if target.fate.under_way}
        assert len(open_waves) <= 1
        assert not open_waves or open_waves == {self.rollout.record.waves}

    @invariant()
    def waves_have_their_size(self) -> None:
        for wave in range(1, self.rollout.record.waves + 1):
            size = sum(target.wave == wave for target in self.rollout.record.targets)
            assert 1 <= size <= (self.canary if wave == 1 else self.batch)

    @invariant()
    def nothing_is_sent_beyond_the_limit(self) -> None:
        """As a wave began, no more had failed than may."""
        targets = self.rollout.record.targets
        for wave in range(2, self.rollout.record.waves + 1):
            before = [target for target in targets if 0 < target.wave < wave]
            failed = sum(target.fate is Fate.FAILED or target.fate is Fate.SILENT for target in before)
            assert not self.limit.exceeded(failed, len(before))

    @invariant()
    def counts_are_right(self) -> None:
        targets = self.rollout.record.targets
        assert self.rollout.counts == {fate.value: sum(target.fate is fate for target in targets) for fate in Fate}


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=60, stateful_step_count=25)
