"""A rollout: one command to many devices in waves, stopped when too many fail. Pure: answers and times in, effects out.

The record is the whole state. It goes to disk before what ``step`` returns is done, so that who goes on with it later knows
what may have been sent. A command is sent again only where nobody knows that the broker ever had it, and then to the letter the
same, which agents do once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

from msgspec import Struct

from reconvene_agent.cli.fleet import said
from reconvene_agent.cli.fleet.orders import counted
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.job import Status

FORMAT = 1


class Share(Struct, frozen=True):
    """So many devices, or so many of a hundred."""

    number: float
    percent: bool

    def of(self, total: int) -> int:
        """Return how many of ``total`` these are: at least 1, at most all."""
        wanted = math.ceil(round(self.number * total / 100, 9)) if self.percent else int(self.number)
        return max(1, min(total, wanted))

    def exceeded(self, failed: int, total: int) -> bool:
        """Whether ``failed`` of ``total`` are more than this."""
        return failed * 100 > self.number * total if self.percent else failed > self.number

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.percent else ''}"


def share(text: str) -> Share:
    """Read ``5%`` or ``20``.

    Raises:
        ValueError: it is neither.
    """
    percent = text.endswith("%")
    number = float(text.removesuffix("%")) if percent else int(text)
    if not 0 <= number <= (100 if percent else 10**9):
        raise ValueError(text)
    return Share(number, percent)


class Order(Struct, frozen=True):
    """What is rolled out, and how. ``timeout_s`` after it was sent a device counts as failed if it has not ended.

    ``key`` is the file of the private key that signs; nothing is signed when empty.
    """

    root: str
    op: str
    id: str
    args: dict[str, Any]
    requester: str
    canary: Share
    batch: Share
    abort_over: Share
    timeout_s: float
    key: str = ""


class Fate(str, Enum):
    """What has become of a device."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    SILENT = "silent"

    @property
    def under_way(self) -> bool:
        return self in (Fate.SENDING, Fate.SENT)


class Target(Struct):
    """One device of a rollout.

    Attributes:
        wave: the wave that it belongs to, from 1; 0 while it waits.
        payload: the command as it was sent, as long as it may have to be sent again.
        begun: the agent itself has answered.
    """

    device: str
    fate: Fate = Fate.WAITING
    wave: int = 0
    sent_at: float = 0.0
    payload: str = ""
    begun: bool = False
    code: str = ""
    detail: str = ""


class Record(Struct):
    """All that is known of a rollout. ``aborted`` says why it was stopped; it is empty as long as it was not."""

    format: int
    order: Order
    targets: list[Target]
    waves: int = 0
    aborted: str = ""


class Send(Struct, frozen=True):
    """Publish a device's command."""

    device: str
    payload: str


class TakeBack(Struct, frozen=True):
    """Clear a command that its device has never answered, so that it does not find it when all is over."""

    device: str


class Tell(Struct, frozen=True):
    """Say a line to people."""

    text: str


Effect = Send | TakeBack | Tell


class Rollout:
    """One rollout; ``compose`` makes the payload for a device that is commanded at a time."""

    def __init__(self, record: Record, compose: Callable[[str, float], str]) -> None:
        self.record = record
        self._compose = compose
        self._targets = {target.device: target for target in record.targets}
        self._under_way = {target.device: target for target in record.targets if target.fate.under_way}
        self._fates = Counter(target.fate for target in record.targets)
        self._news: list[Effect] = []
        self.changed = False
        """Whether the record has changed since it was last stored; whoever stores it says so."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to do: every device has ended, or the rollout is aborted."""
        return bool(self.record.aborted) or not (self._under_way or self._fates[Fate.WAITING])

    @property
    def under_way(self) -> bool:
        """Whether any device may have a command that it has not ended."""
        return bool(self._under_way)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many devices have which fate."""
        return {fate.value: self._fates[fate] for fate in Fate}

    @property
    def failed(self) -> int:
        return self._fates[Fate.FAILED] + self._fates[Fate.SILENT]

    # --- what happens ---------------------------------------------------------------------------------------------------------

    def acknowledged(self, device: str) -> None:
        """The broker has a device's command."""
        target = self._targets[device]
        if target.fate is Fate.SENDING:
            self._become(target, Fate.SENT)

    def heard(self, device: str, document: dict[str, Any]) -> None:
        """Take in what lies on a device's command topic: our own command, or the agent's answer. All else is ignored."""
        target = self._targets.get(device)
        if target is None or target.fate is Fate.WAITING or document.get("issued_at") != rfc3339(target.sent_at):
            return
        answer = said.answer(document)
        self.acknowledged(device)
        if answer is None:
            return
        if not target.begun:
            target.begun, self.changed = True, True
        if answer.status.terminal and target.fate in (Fate.SENT, Fate.SILENT):
            late = " (late)" if target.fate is Fate.SILENT else ""
            good = answer.status is Status.SUCCESSFUL
            target.code, target.detail = answer.code, answer.reason
            self._become(target, Fate.SUCCESSFUL if good else Fate.FAILED)
            if late or not good:
                self._news.append(Tell(f"{device}: {answer.where}{late}"))

    def unsure(self) -> list[Effect]:
        """Return what must be sent again on a new connection, once all that the broker retains is heard."""
        return [Send(each.device, each.payload) for each in self._under_way.values() if each.fate is Fate.SENDING]

    def step(self, now: float) -> list[Effect]:
        """Return what is to be done now. For a time with a connection only: an outage of ours is nobody's failure."""
        effects, self._news = self._news, []
        if self.ended:
            return effects
        effects += self._give_up_the_late(now)
        commanded = len(self.record.targets) - self._fates[Fate.WAITING]
        limit = self.record.order.abort_over
        if commanded and limit.exceeded(self.failed, commanded):
            self.record.aborted = f"{self.failed} of {counted(commanded)} failed, more than {limit}"
            self.changed = True
        elif not self._under_way and self._fates[Fate.WAITING]:
            effects += self._next_wave(now)
        return effects

    # --- inside ---------------------------------------------------------------------------------------------------------------

    def _give_up_the_late(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        limit = self.record.order.timeout_s
        for target in [each for each in self._under_way.values() if now >= each.sent_at + limit]:
            target.detail = f"not ended after {limit:g} s" if target.begun else f"no answer within {limit:g} s"
            if not target.begun:
                effects.append(TakeBack(target.device))
            self._become(target, Fate.SILENT)
            effects.append(Tell(f"{target.device}: {target.detail}"))
        return effects

    def _next_wave(self, now: float) -> list[Effect]:
        record = self.record
        size = (record.order.batch if record.waves else record.order.canary).of(len(record.targets))
        wave = [target for target in record.targets if target.fate is Fate.WAITING][:size]
        record.waves += 1
        for target in wave:
            target.wave, target.sent_at, target.payload = record.waves, now, self._compose(target.device, now)
            self._become(target, Fate.SENDING)
        what = "the canaries" if record.waves == 1 else f"{self.failed} failed so far"
        tell = f"wave {record.waves}: {counted(len(wave))} now, {self._fates[Fate.WAITING]} later ({what})"
        return [Tell(tell), *(Send(target.device, target.payload) for target in wave)]

    def _become(self, target: Target, fate: Fate) -> None:
        self._fates[target.fate] -= 1
        self._fates[fate] += 1
        target.fate = fate
        self.changed = True
        if fate.under_way:
            self._under_way[target.device] = target
        else:
            self._under_way.pop(target.device, None)
        if fate is not Fate.SENDING:
            target.payload = ""
