"""The spool at work: how fast it is written, how fast the daemon drains it at QoS 1, and the daemon's memory with much in it.

Written as the daemon does, one transaction for each record, against a plain SQLite table of the same kind; drained by the real
daemon, TLS on, to a Mosquitto on this machine, against a bare paho client that publishes the same messages. All of it on two
cores. Prints ratios of medians and fails when a figure breaks its limit.
"""

from __future__ import annotations

import os
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from daemon_memory import PORT, make_certificates, resident_mb, start_broker
from reconvene_agent.core.config import TelemetrySection
from reconvene_agent.daemon.effects import Record
from reconvene_agent.daemon.storage.spool import Spool

WRITTEN_PER_S = 5_000.0
DRAINED_PER_S = 2_000.0
LIMIT_MB = 32.0
WRITES = 10_000
WAITING = 100_000
RUNS = 3
SPOOL_BYTES = 256 << 20
FIGURES = {
    "time": "2026-01-01T00:00:00.000Z",
    "temperature_c": 61.5,
    "cpu_percent": 37.4,
    "load_1m": 1.52,
    "memory_available_mb": 1234.5,
    "disk_free_mb": 20480.0,
    "agent_rss_mb": 28.9,
    "uptime_s": 123456.7,
}
FIRST, MIDDLE, LAST = "bench/first", "bench/m", "bench/last"


def topic(number: int) -> str:
    return {0: FIRST, WAITING - 1: LAST}.get(number, MIDDLE)


def rate(work: Callable[[], None], count: int) -> float:
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def write_spool(path: Path) -> float:
    spool = Spool(path, "boot", TelemetrySection(spool_bytes=SPOOL_BYTES))

    def work() -> None:
        for _ in range(WRITES):
            spool.append([Record("measurement", MIDDLE, FIGURES)])

    try:
        return rate(work, WRITES)
    finally:
        spool.close()


def write_plain(path: Path) -> float:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE plain (seq INTEGER PRIMARY KEY, topic TEXT, payload BLOB)")

    def work() -> None:
        for _ in range(WRITES):
            database.execute("INSERT INTO plain (topic, payload) VALUES (?, ?)", (MIDDLE, msgspec.json.encode(FIGURES)))

    try:
        return rate(work, WRITES)
    finally:
        database.close()


def fill(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    spool = Spool(path, "boot", TelemetrySection(spool_bytes=SPOOL_BYTES))
    for begin in range(0, WAITING, 1000):
        spool.append([Record("measurement", topic(number), FIGURES) for number in range(begin, begin + 1000)])
    spool.close()


def client(folder: Path) -> paho.Client:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.crt")
    made = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    made.tls_set_context(context)
    return made


@contextmanager
def arrivals(folder: Path) -> Iterator[Callable[[], float]]:
    """Hear when the first and the last message arrive; yield a function that waits and returns the seconds in between."""
    times: dict[str, float] = {}
    ready, over = threading.Event(), threading.Event()

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        times.setdefault(message.topic, time.perf_counter())
        if message.topic == LAST:
            over.set()

    ear = client(folder)
    ear.on_connect = lambda *_: ear.subscribe([(FIRST, 1), (LAST, 1)])
    ear.on_subscribe = lambda *_: ready.set()
    ear.on_message = on_message
    while True:
        try:
            ear.connect("localhost", PORT)
            break
        except OSError:
            time.sleep(0.1)
    ear.loop_start()
    ready.wait(10)

    def wait() -> float:
        if not over.wait(600):
            raise RuntimeError("the last message did not arrive")
        return times[LAST] - times[FIRST]

    yield wait
    ear.disconnect()
    ear.loop_stop()


def peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the process is gone")


def drain_daemon(folder: Path) -> tuple[float, float, float]:
    """Return records drained per second, and the daemon's memory in MB: before there is a broker, and at its peak."""
    state = Path(tempfile.mkdtemp(dir=folder))
    fill(state / "spool.db")
    config = folder / "config.toml"
    config.write_text(
        f'[agent]\nstate_dir = "{state}"\n[broker]\nurl = "mqtts://localhost:{PORT}"\nca_file = "{folder / "ca.crt"}"\n'
        f"[telemetry]\nspool_bytes = {SPOOL_BYTES}\n"
    )
    daemon = subprocess.Popen(
        [str(Path(sys.executable).parent / "reconvene-agent"), "run", "--config", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(5.0)
        waiting = resident_mb(daemon.pid)
        broker = start_broker(folder)
        try:
            with arrivals(folder) as wait:
                seconds = wait()
            return WAITING / seconds, waiting, peak_mb(daemon.pid)
        finally:
            broker.terminate()
            broker.wait()
    finally:
        daemon.terminate()
        daemon.wait()


BARE = """
import ssl, sys
import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
sys.path.insert(0, sys.argv[1])
import spool
from pathlib import Path
client = spool.client(Path(sys.argv[2]))
client.connect("localhost", spool.PORT)
client.loop_start()
for number in range(spool.WAITING):
    last = client.publish(spool.topic(number), msgspec.json.encode({**spool.FIGURES, "boot_id": "boot", "seq": number}), 1)
    while number % 100 == 99 and len(client._out_messages) > 100:
        last.wait_for_publish(0.001)
last.wait_for_publish()
"""


def drain_bare(folder: Path) -> float:
    """Return the messages per second of a bare client that keeps paho's queue filled."""
    broker = start_broker(folder)
    try:
        with arrivals(folder) as wait:
            bare = subprocess.Popen([sys.executable, "-c", BARE, str(Path(__file__).parent), str(folder)])
            seconds = wait()
            bare.wait()
        return WAITING / seconds
    finally:
        broker.terminate()
        broker.wait()


def main() -> int:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        writes = [(write_spool(folder / f"spool{run}.db"), write_plain(folder / f"plain{run}.db")) for run in range(RUNS)]
        written, plain = (statistics.median(column) for column in zip(*writes, strict=True))
        print(f"written                     {written:9.0f} records/s (at least {WRITTEN_PER_S:.0f})", flush=True)
        print(f"plain SQLite                {plain:9.0f} records/s")
        print(f"ratio                       {written / plain:9.2f}", flush=True)
        drains = [(*drain_daemon(folder), drain_bare(folder)) for _ in range(RUNS)]
        drained, waiting, peak, bare = (statistics.median(column) for column in zip(*drains, strict=True))
    print(f"drained by the daemon       {drained:9.0f} records/s (at least {DRAINED_PER_S:.0f})")
    print(f"published by bare paho      {bare:9.0f} messages/s")
    print(f"ratio                       {drained / bare:9.2f}")
    print(f"daemon, {WAITING} waiting     {waiting:9.1f} MB (limit {LIMIT_MB:.0f})")
    print(f"its peak, start to drained  {peak:9.1f} MB (limit {LIMIT_MB:.0f})")
    return 0 if written >= WRITTEN_PER_S and drained >= DRAINED_PER_S and max(waiting, peak) <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
