"""The picture of a fleet, from the messages of its devices."""

from __future__ import annotations

from typing import Any

import msgspec

from reconvene_agent.cli.fleet.picture import Device, Picture, ago, entry, row, subscriptions
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.topics import Topics

NOW = 1767225600.0
MODEL = {"version": "r0001-ab", "accuracy": 0.913, "latency_ms": {"p50": 1.5, "p95": 2.25}, "bytes": 4096, "sparsity": 0.9}


class Sketch:
    """A picture, and what draws on it."""

    def __init__(self) -> None:
        self.picture = Picture("te")
        self.live = False

    def say(self, rest: str, document: dict[str, Any] | None = None, device: str = "b1", at: float = NOW) -> None:
        payload = b"" if document is None else msgspec.json.encode(document)
        self.picture.take(f"{Topics('te', device).service}/{rest}", payload, len(payload), at, self.live)

    def up(self, state: str = "idle", device: str = "b1", ago_s: float = 60.0) -> None:
        self.say("status/health", {"status": "up", "state": state, "version": "1.0", "time": rfc3339(NOW - ago_s)}, device)

    def state(self, status: str, **fields: Any) -> None:
        self.say("cmd/plan/1", {"status": status, "rev": 2, "updated_at": rfc3339(NOW - 5), **fields})

    @property
    def device(self) -> Device:
        return self.picture.devices["b1"]


def test_a_device_that_works() -> None:
    sketch = Sketch()
    sketch.up("specialize")
    sketch.say("twin/model", MODEL)
    sketch.say("a/over_budget", {"text": "too slow", "severity": "major"})
    sketch.state("executing", step="train", progress=0.42)
    expected = ("b1", "specialize", "train", "42%", "r0001-ab", "91.3%", "2.25", "5 s ago", "over_budget")
    assert row(sketch.device, NOW) == expected
    assert entry(sketch.device) == {
        "device": "b1",
        "up": True,
        "state": "specialize",
        "version": "1.0",
        "job": {"op": "plan", "id": "1", "step": "train", "progress": 0.42},
        "model": {
            "version": "r0001-ab",
            "accuracy": 0.913,
            "latency_ms_p50": 1.5,
            "latency_ms_p95": 2.25,
            "bytes": 4096.0,
            "sparsity": 0.9,
        },
        "alarms": {"over_budget": "too slow"},
        "last_seen": rfc3339(NOW - 5),
    }
    assert sketch.picture.summary() == {"devices": 1, "up": 1, "down": 0, "busy": 1}


def test_a_job_goes_with_its_end_and_an_alarm_with_its_clearing() -> None:
    sketch = Sketch()
    sketch.up("plan")
    sketch.say("a/over_budget", {"text": "too slow"})
    sketch.state("executing", step="plan", progress=0.1)
    sketch.state("successful")
    sketch.say("a/over_budget")
    assert (sketch.device.work, sketch.device.alarms) == (None, {})


def test_a_stale_state_of_a_device_that_says_it_is_idle_is_no_work() -> None:
    sketch = Sketch()
    sketch.state("executing", step="train", progress=0.1)
    sketch.up("idle")
    assert row(sketch.device, NOW)[1:4] == ("idle", "", "")


def test_a_last_will_makes_it_down_and_is_no_sign_of_life() -> None:
    sketch = Sketch()
    sketch.up("idle", ago_s=60)
    sketch.live = True
    sketch.say("status/health", {"status": "down", "session": "s"}, at=NOW + 100)
    assert row(sketch.device, NOW)[1] == "down"
    assert sketch.device.seen == NOW - 60


def test_what_is_said_now_counts_as_seen_now_and_a_clock_ahead_does_not() -> None:
    sketch = Sketch()
    sketch.up(ago_s=-3600)
    assert sketch.device.seen == NOW
    sketch.live = True
    sketch.say("m/system", {"time": rfc3339(NOW - 9999), "cpu_percent": 1.0}, at=NOW + 7)
    assert sketch.device.seen == NOW + 7


def test_a_command_to_nobody_is_no_device() -> None:
    sketch = Sketch()
    sketch.say("cmd/ping/1", {"status": "init", "args": {}})
    sketch.say("cmd/ping/1")
    assert sketch.picture.devices == {}


def test_a_device_whose_health_is_cleared_is_forgotten() -> None:
    sketch = Sketch()
    sketch.up()
    sketch.say("status/health")
    assert sketch.picture.devices == {}


def test_no_sense_is_counted_and_foreign_topics_are_nothing() -> None:
    sketch = Sketch()
    picture = sketch.picture
    picture.take(f"{Topics('te', 'b1').service}/status/health", None, 1 << 20, NOW, True)
    picture.take(f"{Topics('te', 'b1').service}/a/x y", b"{}", 2, NOW, True)
    picture.take("te/device/b1/service/other/status/health", b"{}", 2, NOW, True)
    assert (picture.senseless, picture.devices) == (2, {})


def test_no_device_takes_more_than_its_share_of_memory() -> None:
    sketch = Sketch()
    sketch.up()
    for number in range(100):
        sketch.say(f"a/alarm-{number}", {"text": "x" * 10_000})
        sketch.say(f"cmd/plan/{number}", {"status": "executing", "rev": 1, "step": "s" * 10_000})
    assert len(msgspec.json.encode(entry(sketch.device))) < 5000


def test_those_in_trouble_come_first() -> None:
    sketch = Sketch()
    for device, state in (("a", "idle"), ("b", "plan"), ("c", "idle"), ("d", "idle")):
        sketch.up(state, device)
    sketch.say("cmd/plan/1", {"status": "executing", "rev": 1}, "b")
    sketch.say("a/over_budget", {"text": "x"}, "c")
    sketch.say("status/health", {"status": "down"}, "d")
    assert [device.name for device in sketch.picture.by_interest()] == ["b", "c", "d", "a"]
    assert [device.name for device in sketch.picture.by_name()] == ["a", "b", "c", "d"]


def test_a_few_filters_do_for_any_number_of_devices() -> None:
    filters = subscriptions("te")
    assert len(filters) <= 8, "AWS IoT Core takes no more in one packet"
    assert all(name.startswith("te/device/+/service/reconvene-agent/") for name in filters)


def test_times_are_told_in_words() -> None:
    told = [ago(seconds) for seconds in (-5, 0, 59, 60, 3600, 86400 * 3)]
    assert told == ["0 s ago", "0 s ago", "59 s ago", "1 min ago", "1 h ago", "3 d ago"]
