"""Wall time of the commands that need no weights, against starting Python and importing nothing, taken in turn.

Prints medians in milliseconds and fails when a command takes longer than its limit.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 0.3
RUNS = 15


def seconds(words: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, env=environment, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> int:
    program = str(Path(sys.executable).parent / "reconvene-agent")
    if not Path(program).exists():
        program = shutil.which("reconvene-agent") or program
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.toml"
        config.write_text(f'[agent]\nstate_dir = "{folder / "state"}"\n')
        environment = {**os.environ, "RECONVENE_AGENT_CONFIG": str(config)}
        create = [program, *"bundle create --model vgg16 --input 3x32x32 --classes 10 --seed 0".split()]
        subprocess.run([*create, str(folder / "b")], env=environment, check=True, capture_output=True)
        daemon = subprocess.Popen([program, "run"], env=environment, stderr=subprocess.DEVNULL)
        commands = {
            "--help": lambda _: [program, "--help"],
            "--version": lambda _: [program, "--version"],
            "status": lambda _: [program, "status"],
            "status --json": lambda _: [program, "status", "--json"],
            "probe": lambda _: [program, "probe"],
            "profiles": lambda _: [program, "profiles"],
            "bundle create": lambda run: [*create, str(folder / f"b{run}")],
            "bundle verify": lambda _: [program, "bundle", "verify", str(folder / "b")],
        }
        try:
            baseline: list[float] = []
            times: dict[str, list[float]] = {command: [] for command in commands}
            for run in range(RUNS + 1):
                bare = seconds([sys.executable, "-c", "pass"], environment)
                found = {command: seconds(words(run), environment) for command, words in commands.items()}
                if run:  # the first round warms the caches
                    baseline.append(bare)
                    for command, value in found.items():
                        times[command].append(value)
        finally:
            daemon.terminate()
            daemon.wait()
    floor = statistics.median(baseline)
    print(f"{'python -c pass':<16}{1000 * floor:7.0f} ms")
    slow = False
    for command, values in times.items():
        median = statistics.median(values)
        slow |= median > LIMIT_S
        print(f"{command:<16}{1000 * median:7.0f} ms  {median / floor:5.1f}×  (limit {1000 * LIMIT_S:.0f} ms)")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
