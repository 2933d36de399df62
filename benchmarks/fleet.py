"""A fleet on one broker on one machine: births, telemetry every 10 s, a rollout to all.

Every agent is the real protocol code (Agent, Outbox, Spool) with a worker that does nothing, many in a process; the controller is
that of ``reconvene-agent fleet``. Prints the publications per second at the broker, how long commands take to ``executing`` as
the controller sees it, and who needs how much of a core.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from reconvene_agent.cli.fleet import driving, orders, said
from reconvene_agent.cli.fleet.hub import Heard, Hub, News
from reconvene_agent.cli.fleet.picture import Picture
from reconvene_agent.cli.fleet.rollout import FORMAT, Order, Record, Rollout, Share, Target
from reconvene_agent.core.job import Status
from reconvene_agent.core.topics import Topics, of_any_device
from reconvene_agent.daemon.broker.link import Link

HOST = "127.0.0.1"
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
# Mosquitto's own count of publications received leaves out retained ones; but it acknowledges each, and counts what it sends.
COUNTERS = ("messages/sent", "publish/messages/sent", "bytes/received", "bytes/sent")
LIMIT_P95_S = 2.0


class Broker:
    """A Mosquitto that counts every second."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} {HOST}\nallow_anonymous true\nsys_interval 1\nmax_queued_messages 0\n")
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)

    def hub(self, *filters: str) -> Hub:
        return Hub(Link(HOST, self.port, f"bench-{time.monotonic_ns()}", "5", 60, session_s=0), filters, 1.0)


class Meter:
    """What the broker counts, and what processes need, from one reading to the next; meanwhile devices get into the picture."""

    def __init__(self, hub: Hub, picture: Picture, processes: dict[str, list[psutil.Process]]) -> None:
        self._hub = hub
        self._picture = picture
        self._processes = processes
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._before: tuple[float, dict[str, int], dict[str, float]] | None = None

    def take(self, news: News | None) -> None:
        if isinstance(news, Heard) and of_any_device("te", news.topic):
            self._picture.take(news.topic, news.payload, news.size, time.time(), live=True)
        elif isinstance(news, Heard) and news.topic.startswith("$SYS/broker/") and news.payload:
            name = news.topic.removeprefix("$SYS/broker/")
            if name in self._counters:
                self._counters[name] = int(news.payload)

    def read(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """Return the seconds since the last reading, counts per second, and shares of one core."""
        until = time.monotonic() + 1.5  # the next count is this late at most
        while (left_s := until - time.monotonic()) > 0:
            self.take(self._hub.next(left_s))
        now = time.monotonic()
        used = {name: sum(sum(process.cpu_times()[:2]) for process in processes) for name, processes in self._processes.items()}
        before = self._before or (now, self._counters, used)
        self._before = (now, dict(self._counters), used)
        seconds = max(now - before[0], 1e-9)
        rates = {name: (count - before[1][name]) / seconds for name, count in self._counters.items()}
        return seconds, rates, {name: (value - before[2][name]) / seconds for name, value in used.items()}


def tell(what: str, reading: tuple[float, dict[str, float], dict[str, float]]) -> None:
    seconds, rates, cores = reading
    packets, sent, bytes_in, bytes_out = (rates[name] for name in COUNTERS)
    used = ", ".join(f"{name} {share:.2f}" for name, share in cores.items())
    print(
        f"{what:<18}{seconds:4.0f} s  in {packets - sent:6.0f}/s {bytes_in / 1000:6.0f} kB/s"
        f"  out {sent:6.0f}/s {bytes_out / 1000:6.0f} kB/s  cores: {used}",
        flush=True,
    )


class Timed(Rollout):
    """A rollout that notes how long after its sending each device is executing."""

    def __init__(self, record: Record, compose: Callable[[str, float], str]) -> None:
        super().__init__(record, compose)
        self.latencies: dict[str, float] = {}

    def heard(self, device: str, document: dict[str, object]) -> None:
        super().heard(device, document)
        answer = said.answer(document)
        target = self._targets.get(device)
        if answer is not None and answer.status is Status.EXECUTING and target is not None and device not in self.latencies:
            self.latencies[device] = time.time() - target.sent_at


def roll_out(broker: Broker, name: str, devices: list[str], canary: Share, batch: Share) -> list[float]:
    """Command every device and return the latencies in seconds, sorted."""
    order = Order("te", "specialize", name, {}, "bench", canary, batch, Share(0, False), 120.0)
    record = Record(FORMAT, order, [Target(device) for device in devices])
    rollout = Timed(record, lambda _, now: msgspec.json.encode(orders.compose({}, "bench", now, None)).decode())
    with broker.hub(Topics("te", "+").command(order.op, order.id)) as hub:
        driving.drive(hub, rollout, lambda: None)
    assert rollout.counts["successful"] == len(devices), record.aborted or rollout.counts
    return sorted(rollout.latencies.values())


def tell_latencies(what: str, latencies: list[float]) -> float:
    p50, p95, p99 = (1000 * statistics.quantiles(latencies, n=100)[rank - 1] for rank in (50, 95, 99))
    print(f"{what:<18}to executing: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms", flush=True)
    return p95 / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1, help="to spread the agents over")
    parser.add_argument("--seconds", type=float, default=30.0, help="of telemetry that are measured")
    given = parser.parse_args()
    # A thousand spools on one disk would measure that disk; every board has its own.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        broker = Broker(folder)
        share = -(-given.agents // given.processes)
        script = Path(__file__).with_name("simulated_agents.py")
        agents = [
            subprocess.Popen(
                [sys.executable, str(script), str(broker.port), str(first), str(min(share, given.agents - first)), name]
            )
            for first in range(0, given.agents, share)
        ]
        try:
            return measure(broker, agents, given.agents, given.seconds)
        finally:
            for process in (*agents, broker.process):
                process.terminate()
                process.wait()


def measure(broker: Broker, agents: list[subprocess.Popen[bytes]], count: int, seconds: float) -> int:
    processes = {
        "broker": [psutil.Process(broker.process.pid)],
        "agents": [psutil.Process(agent.pid) for agent in agents],
        "controller": [psutil.Process()],
    }
    picture = Picture("te")
    begin = time.monotonic()
    with broker.hub(Topics("te", "+").health, *(f"$SYS/broker/{name}" for name in COUNTERS)) as hub:
        meter = Meter(hub, picture, processes)
        meter.read()
        while picture.summary()["up"] < count:
            meter.take(hub.next(1.0))
            assert time.monotonic() - begin < 120, picture.summary()
        tell(f"{count} births", meter.read())
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            meter.take(hub.next(left_s))
        tell("telemetry", meter.read())
        devices = sorted(picture.devices)
        waves = roll_out(broker, "waves", devices, Share(5, True), Share(20, True))
        tell("rollout in waves", meter.read())
        p95 = tell_latencies("rollout in waves", waves)
        at_once = roll_out(broker, "at-once", devices, Share(100, True), Share(100, True))
        tell("rollout at once", meter.read())
        tell_latencies("rollout at once", at_once)
    resident = sum(process.memory_info().rss for process in processes["agents"]) / 1e6
    print(f"memory            broker {processes['broker'][0].memory_info().rss / 1e6:.0f} MB, all agents {resident:.0f} MB")
    print(f"p95 of a wave {p95:.2f} s (limit {LIMIT_P95_S:g} s)")
    return int(p95 > LIMIT_P95_S)


if __name__ == "__main__":
    sys.exit(main())
