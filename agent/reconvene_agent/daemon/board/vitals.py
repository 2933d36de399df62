"""What each sample of the board means for the fleet: a disk that fills up, clocks that are held down. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconvene_agent.core.device import Device, Storage
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import reports
from reconvene_agent.daemon.reporting.alarms import Alarms

SCARCE_SHARE = 0.05
SCARCE_MB = 256.0
"""A disk is nearly full where less than this share of it is free, and less than these MiB: large disks have enough in less."""
ENOUGH = 1.5
"""Times that which must be free again, so that an alarm does not come and go with each file."""


class Vitals:
    """What was seen of the disk and the clocks, so that only news are told."""

    def __init__(self, topics: Topics, alarms: Alarms) -> None:
        self._topics = topics
        self._alarms = alarms
        self._scarce = False
        self._held_down = False

    def sampled(self, device: Device, held_down: bool | None, wall: float) -> Iterator[Effect]:
        """Take in a sample; ``held_down`` is whether something holds the clocks down, None where the board cannot tell."""
        if held_down and not self._held_down:
            yield reports.event(self._topics, "throttled", wall, temperature_c=device.temperature_c)
        self._held_down = bool(held_down)
        yield from self._storage(device.storage, wall)

    def _storage(self, storage: Storage, wall: float) -> Iterator[Effect]:
        if not storage.total_mb:
            return  # it cannot be told
        least = min(SCARCE_SHARE * storage.total_mb, SCARCE_MB)
        self._scarce = storage.free_mb < (ENOUGH * least if self._scarce else least)
        if self._scarce:
            # Without what is free now: each change of an alarm's text is told anew.
            text = f"the disk of {storage.path} is nearly full: free at least {ENOUGH * least:.3g} MiB of it"
            yield from self._alarms.sound("disk_nearly_full", text, "major", wall)
        else:
            yield from self._alarms.clear("disk_nearly_full")
