"""Is the pruned model cheaper to train than the dense one? VGG-16 at sparsity 0.9, inputs per second and peak memory.

Both are trained by `reconvene-agent specialize` on the same random images, in turn, as a user would; the ratios are of medians.
Fails where the pruned model trains less than twice as fast, or takes more than half the memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

AGENT = str(Path(sys.executable).parent / "reconvene-agent")
IMAGES = 640
CLASSES = 10
SPARSITIES = {"dense": "0", "pruned": "0.9"}
MIN_FASTER = 2.0
MAX_MEMORY = 0.5


def agent(*words: str) -> Any:
    done = subprocess.run([AGENT, *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout)


def images(path: Path) -> Path:
    draw = np.random.default_rng(0)
    np.savez(path, x=draw.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8), y=np.arange(IMAGES) % CLASSES)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SPARSITIES}
    with tempfile.TemporaryDirectory() as name:
        bundle, data = f"{name}/bundle", str(images(Path(name) / "data.npz"))
        agent("bundle", "create", "--model", "vgg16", "--input", "3x32x32", "--classes", str(CLASSES), "--seed", "0", bundle)
        for number in range(rounds):
            for side, sparsity in SPARSITIES.items():
                run = agent(
                    *("specialize", "--bundle", bundle, "--data", data, "--out", f"{name}/{side}-{number}"),
                    *("--sparsity", sparsity, "--epochs", "2"),
                )
                found[side].append(run["training"])
    speed, memory = (
        {side: statistics.median(run[what] for run in runs) for side, runs in found.items()}
        for what in ("images_per_second", "memory_mb")
    )
    for side in SPARSITIES:
        print(f"{side:<8}{speed[side]:8.0f} images/s {memory[side]:8.0f} MiB above the libraries")
    faster, share = speed["pruned"] / speed["dense"], memory["pruned"] / memory["dense"]
    print(f"speed   {faster:5.2f}× the dense model's (at least {MIN_FASTER:g})")
    print(f"memory  {share:5.2f}× the dense model's (at most {MAX_MEMORY:g})")
    return 0 if faster >= MIN_FASTER and share <= MAX_MEMORY else 1


if __name__ == "__main__":
    sys.exit(main())
