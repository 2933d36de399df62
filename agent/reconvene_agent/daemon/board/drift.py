"""Whether the deployed model still fits its board: the memory that is available, and its latency, timed now and then. Pure.

What leaves the budget for a sustained time, and at two looks at least, is an alarm, until it is back for as long.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import DriftSection
from reconvene_agent.core.protocol import Done, Failed
from reconvene_agent.core.release import Release
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import WorkerEnded, WorkerSaid
from reconvene_agent.daemon.reporting import reports
from reconvene_agent.daemon.reporting.alarms import Alarms

KEY = "drift"
"""The key of the worker that times the deployed model; no command has it."""

BUSY_RETRY_S = 60.0
"""When to try again on a board that was busy when its model was to be timed."""

Effects = Iterator[Effect]


class Sustained:
    """A condition that counts once it has lasted, and no longer once it has been gone for as long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._changing_since: float | None = None
        self.stands = False

    @property
    def unsettled(self) -> bool:
        """Whether the last look said otherwise than what stands."""
        return self._changing_since is not None

    def see(self, found: bool, mono: float) -> None:
        """Take in what a look says."""
        if found == self.stands:
            self._changing_since = None
        elif self._changing_since is None:
            self._changing_since = mono
        elif mono - self._changing_since >= self._seconds:
            self.stands, self._changing_since = found, None


class Drift:
    """Watches the deployed model of one agent. ``reserve_mb`` of the memory are never to be touched."""

    def __init__(self, topics: Topics, alarms: Alarms, settings: DriftSection, reserve_mb: float, mono: float) -> None:
        self._topics = topics
        self._alarms = alarms
        self._settings = settings
        self._reserve_mb = reserve_mb
        self._release: Release | None = None
        self._check_at = mono + settings.check_interval_s if settings.check_interval_s else None
        self._end_at: float | None = None
        self._forget()

    def _forget(self) -> None:
        self._memory, self._latency = Sustained(self._settings.sustained_s), Sustained(self._settings.sustained_s)
        self._lacks = self._slow = ""

    @property
    def due(self) -> float | None:
        """When ``step`` wants to be called again, on the monotonic clock."""
        return self._end_at or (None if self._release is None else self._check_at)

    @property
    def unfit(self) -> str:
        """In which way the deployed model has not fitted its budget for long enough; empty when it fits."""
        found = [text for condition, text in ((self._memory, self._lacks), (self._latency, self._slow)) if condition.stands]
        return f"the deployed model no longer fits its budget: {'; '.join(found)}" if found else ""

    def deployed(self, release: Release | None) -> Effects:
        """Take in which release serves; what was found of another one counts no more."""
        if release != self._release:
            self._release = release
            self._forget()
            yield from self._alarms.clear("over_budget")

    def sampled(self, available_mb: float, now: Now) -> Effects:
        """Take in how much memory is available."""
        release = self._release
        if release is None or not release.memory_mb:
            return
        left = available_mb - self._reserve_mb
        if not self._memory.stands:  # an alarm keeps its first figures
            self._lacks = f"{release.memory_mb:.0f} MiB of memory are needed and {max(0.0, left):.0f} are left"
        self._memory.see(left < release.memory_mb, now.mono)
        yield from self._tell(now)

    def step(self, idle: bool, now: Now) -> Effects:
        """Have the model timed when that is due and nothing else is going on; end a worker that does not come to an end."""
        if self._end_at is not None:
            if now.mono >= self._end_at:
                self._end_at = now.mono + self._settings.timeout_s
                yield do.EndTiming()
        elif idle and self._release is not None and self._check_at is not None and now.mono >= self._check_at:
            self._check_at = now.mono + self._settings.check_interval_s
            self._end_at = now.mono + self._settings.timeout_s
            yield do.TimeModel()
        elif self.due is not None and now.mono >= self.due:
            self._check_at = now.mono + BUSY_RETRY_S

    def said(self, event: WorkerSaid, idle: bool, now: Now) -> Effects:
        """Take in the figures of the worker; those of a board that was busy with a job of ours do not count."""
        release, message = self._release, event.message
        if isinstance(message, Failed):
            yield do.Log("warning", f"the deployed model cannot be timed: {message.message}")
        if not isinstance(message, Done) or release is None or not idle or message.result.get("version") != release.version:
            return
        latency = {name: float(message.result["latency_ms"][name]) for name in ("p50", "p95")}
        figures = {f"latency_ms_{name}": value for name, value in latency.items()}
        yield reports.measurement(self._topics, "inference", figures, now.wall)
        limits = {"p95": release.budget.latency_ms, "p50": release.budget.latency_p50_ms}
        over = [
            f"{name} is {latency[name]:.3g} ms, over {limit.value:g}"
            for name, limit in limits.items()
            if limit is not None and latency[name] > limit.value
        ]
        if not self._latency.stands:
            self._slow = ", ".join(over)
        self._latency.see(bool(over), now.mono)
        if self._latency.unsettled and self._check_at is not None:
            self._check_at = min(self._check_at, now.mono + self._settings.sustained_s)
        yield from self._tell(now)

    def ended(self, _event: WorkerEnded) -> Effects:
        """Note that the worker is gone."""
        self._end_at = None
        yield from ()

    def _tell(self, now: Now) -> Effects:
        if self.unfit:
            yield from self._alarms.sound("over_budget", self.unfit, "major", now.wall)
        else:
            yield from self._alarms.clear("over_budget")
