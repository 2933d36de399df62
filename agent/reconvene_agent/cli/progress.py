"""Progress of a worker on stderr: a live bar on a terminal, a line now and then everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from reconvene_agent.core.plan import named
from reconvene_agent.core.protocol import Happening
from reconvene_agent.core.protocol import Progress as ProgressMessage

SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Something that shows how far a run is."""

    def update(self, message: ProgressMessage) -> None:
        """Show where the run is."""

    def happened(self, event: Happening) -> None:
        """Show an event, if it is one that people care about."""

    def say(self, text: str) -> None:
        """Show a line."""


def describe(event: Happening) -> str:
    """Return the one line that tells an event, or nothing for those not worth one."""
    data = event.data
    if event.name == "plan":
        chosen = data["chosen"]
        latency = chosen.get("latency_ms")
        measured = f", p95 {latency['p95']:.3g} ms" if latency else ""
        return f"plan: {named(chosen['width_multiplier'], chosen['sparsity'])}, {chosen['params']:,} parameters{measured}"
    if event.name == "prune":
        params = data["params"]
        return f"pruned: {params['dense']:,} → {params['stored']:,} parameters in {data['seconds']['total']:.2f} s"
    if event.name == "epoch":
        return f"epoch {data['epoch']}/{data['epochs']}: loss {data['loss']:.3f}, held-out accuracy {data['accuracy']:.1%}"
    if event.name == "warning":
        examples = "; ".join(data.get("examples", ())[:3])
        return f"warning: {data['text']}" + (f" ({examples})" if examples else "")
    if event.name == "release":
        return f"released {data['version']}: {data['bytes']:,} bytes, p95 {data['latency_ms']['p95']:.3g} ms"
    return ""


class Lines:
    """Progress as plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._step: Any = None
        self._last = 0.0

    def update(self, message: ProgressMessage) -> None:
        now = time.monotonic()
        if message.step is self._step and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._step, self._last = message.step, now
        note = f" {message.note}" if message.note else ""
        self.say(f"{message.step.value:<9}{message.fraction:>5.0%}{note}")

    def happened(self, event: Happening) -> None:
        if text := describe(event):
            self.say(text)

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bar:
    """Progress as a live bar below the lines."""

    def __init__(self, live: Any, task: Any) -> None:
        self._live = live
        self._task = task

    def update(self, message: ProgressMessage) -> None:
        self._live.update(self._task, completed=message.fraction, description=message.step.value, note=message.note)

    def happened(self, event: Happening) -> None:
        if text := describe(event):
            self.say(text)

    def say(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)


@contextmanager
def progress_for(stream: TextIO) -> Iterator[Progress]:
    """Show progress on ``stream`` as it deserves."""
    if not stream.isatty():
        yield Lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Live

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Live(*columns, console=Console(file=stream), transient=True) as live:
        yield Bar(live, live.add_task("starting", total=1.0, note=""))
