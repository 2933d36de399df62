"""A rollout on the wire: what the broker says goes into it, what it wants is done, its record is stored before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from reconvene_agent.cli.fleet import said
from reconvene_agent.cli.fleet.hub import Delivered, Heard, Hub, News, Offline, Online
from reconvene_agent.cli.fleet.rollout import Effect, Rollout, Send, TakeBack
from reconvene_agent.cli.output import say
from reconvene_agent.core.topics import Topics, of_any_device

AT_ONCE = 2000
LONGEST_WAIT_S = 1.0
SAVE_EVERY_S = 2.0
TELL_EVERY_S = 15.0


def drive(hub: Hub, rollout: Rollout, save: Callable[[], None]) -> None:
    """Drive a rollout to its end."""
    _Drive(hub, rollout, save).run()


class _Drive:
    def __init__(self, hub: Hub, rollout: Rollout, save: Callable[[], None]) -> None:
        self._hub = hub
        self._rollout = rollout
        self._save = save
        self._handles: dict[int, str] = {}
        self._online = True
        self._saved = self._told = time.monotonic()

    def run(self) -> None:
        if self._rollout.under_way:  # an earlier run was stopped
            self._settle()
        wait_s = 0.0
        while not self._rollout.ended:
            for _ in range(AT_ONCE):
                news = self._hub.next(wait_s)
                if news is None:
                    break
                self._take(news)
                wait_s = 0.0
            wait_s = LONGEST_WAIT_S
            if self._online:
                self._do(self._rollout.step(time.time()))
            self._store(now=False)
            self._tell()
        self._store(now=True)

    def _take(self, news: News) -> None:
        if isinstance(news, Offline):
            say(f"no broker: {news.reason}")
            self._online = False
        elif isinstance(news, Online):
            if not self._online:
                self._settle()
        else:
            self._listen(news)

    def _listen(self, news: News) -> None:
        if isinstance(news, Delivered):
            device = self._handles.pop(news.handle, None)
            if news.refusal:
                say(f"the broker refuses what is sent: {news.refusal}")
            elif device is not None:
                self._rollout.acknowledged(device)
        elif isinstance(news, Heard) and news.size:
            found = of_any_device(self._rollout.record.order.root, news.topic)
            document = said.document(news.payload)
            if found is not None and document is not None:
                self._rollout.heard(found[0], document)

    def _settle(self) -> None:
        """Hear what the broker retains, then send what it does not have."""
        self._handles.clear()
        for news in self._hub.until_quiet():
            if isinstance(news, Offline):
                self._take(news)
                return
            self._listen(news)
        self._online = True
        self._do(self._rollout.unsure())

    def _do(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        order = self._rollout.record.order
        if any(isinstance(effect, (Send, TakeBack)) for effect in effects):
            self._store(now=True)
        for effect in effects:
            if isinstance(effect, Send):
                topic = Topics(order.root, effect.device).command(order.op, order.id)
                handle = self._hub.publish(topic, effect.payload.encode())
                if handle is not None:  # else it is sent on the next connection
                    self._handles[handle] = effect.device
            elif isinstance(effect, TakeBack):
                self._hub.publish(Topics(order.root, effect.device).command(order.op, order.id), b"")
            else:
                say(effect.text)

    def _store(self, now: bool) -> None:
        if self._rollout.changed and (now or time.monotonic() - self._saved > SAVE_EVERY_S):
            self._save()
            self._rollout.changed = False
            self._saved = time.monotonic()

    def _tell(self) -> None:
        if time.monotonic() - self._told > TELL_EVERY_S:
            self._told = time.monotonic()
            counts = self._rollout.counts
            say(", ".join(f"{count} {name}" for name, count in counts.items() if count))
