"""What is deployed, as the agent knows it: told when it changes, with an alarm while a release is broken. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.release import Release
from reconvene_agent.core.topics import EventName
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import announce
from reconvene_agent.daemon.reporting.alarms import Alarms
from reconvene_agent.daemon.reporting.identity import Identity


class Deployed:
    """The deployed model of one agent."""

    def __init__(self, identity: Identity, alarms: Alarms) -> None:
        self._identity = identity
        self._alarms = alarms
        self.release: Release | None = None

    def read(self, event: events.ReleaseRead, now: Now) -> Iterator[Effect]:
        """Take in what serves."""
        changed, self.release = event.release != self.release, event.release
        if event.fell is not None:
            fell = {"before": event.fell.broken, "after": event.fell.after, "reason": event.fell.flaw}
            yield do.Record("event", self._identity.topics.event("rolled_back"), {"time": rfc3339(now.wall), **fell})
        if event.problem:
            yield from self._alarms.sound("release_broken", event.problem, "major" if event.release else "critical", now.wall)
        else:
            yield from self._alarms.clear("release_broken")
        if changed:
            yield self._twin()

    def announce(self) -> Iterator[Effect]:
        """Tell the broker what is deployed, or that nothing is: it may keep a model of an earlier time."""
        yield self._twin()

    def _twin(self) -> Effect:
        if self.release is None:
            return do.Publish(self._identity.topics.twin("model"), b"")
        return announce.twin(self._identity, "model", announce.model(self.release))


def switched(identity: Identity, label: str, event: events.ReleaseSwitched, wall: float) -> Effect:
    """Return the event that tells the fleet of a switch that a command made."""
    assert event.switch is not None
    name: EventName = "rolled_back" if label.startswith("rollback/") else "model_promoted"
    document = {"time": rfc3339(wall), "command": label, **told(event)}
    return do.Record("event", identity.topics.event(name), document)


def told(event: events.ReleaseSwitched) -> dict[str, str | None]:
    """Return the versions before and after a switch."""
    assert event.switch is not None
    return {"before": event.switch.before, "after": event.switch.after}
