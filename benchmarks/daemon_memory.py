"""Resident memory of the idle daemon, TLS on, connected to a Mosquitto on this machine.

Compared with the least that any Python daemon of this kind takes: CPython, paho and the same TLS connection, nothing else.
Prints MB (10^6 bytes) and fails when the daemon takes more than its limit.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MB = 30.0
RUNS = 5
SETTLE_S = 8.0
PORT = 18899

BARE = """
import ssl, sys, time
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(sys.argv[1])
client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
client.tls_set_context(context)
client.connect("localhost", int(sys.argv[2]))
client.loop_start()
time.sleep(3600)
"""


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """Make a certificate authority and a certificate for localhost."""
    openssl(folder, *"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt".split())
    openssl(folder, *"req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr".split())
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt"
    openssl(folder, *sign.split())


def start_broker(folder: Path) -> subprocess.Popen[bytes]:
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)  # Mosquitto gives up root before it reads them
    settings = f"listener {PORT} 127.0.0.1\nallow_anonymous true\n"
    settings += "".join(f"{key} {folder / name}\n" for key, name in FILES.items())
    (folder / "mosquitto.conf").write_text(settings)
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    return subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)


FILES = {"cafile": "ca.crt", "certfile": "server.crt", "keyfile": "server.key"}


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the process is gone")


def measure(words: list[str]) -> float:
    """Start a process, let it settle, and return its resident memory."""
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        time.sleep(SETTLE_S)
        return resident_mb(process.pid)
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        broker = start_broker(folder)
        config = folder / "config.toml"
        config.write_text(
            f'[agent]\nstate_dir = "{folder / "state"}"\n'
            f'[broker]\nurl = "mqtts://localhost:{PORT}"\nca_file = "{folder / "ca.crt"}"\n[telemetry]\ninterval_s = 1.0\n'
        )
        daemon = [str(Path(sys.executable).parent / "reconvene-agent"), "run", "--config", str(config)]
        bare = [sys.executable, "-c", BARE, str(folder / "ca.crt"), str(PORT)]
        try:
            measure(daemon)  # writes the bytecode that an installed package has
            pairs = [(measure(daemon), measure(bare)) for _ in range(RUNS)]
        finally:
            broker.terminate()
            broker.wait()
    ours, least = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, high = min(pair[0] for pair in pairs), max(pair[0] for pair in pairs)
    print(f"idle daemon, TLS on      {ours:6.1f} MB  (limit {LIMIT_MB:.0f}; {low:.1f} to {high:.1f})")
    print(f"paho and TLS alone       {least:6.1f} MB")
    print(f"ratio                    {ours / least:6.2f}")
    return 0 if ours <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
