"""Is the pruned model cheaper to train than the dense one? VGG-16 at sparsity 0.9, inputs per second and peak memory.

All are trained by `reconvene-agent specialize` on the same random images, in turn, as a user would; the ratios are of medians.
Each begins a run of many epochs, and so finds out in which way it computes fastest here; with `--plain` it computes in the plain
way, as runs of less than five minutes do. There is nothing to learn, so it ends after a few epochs.

Fails where a pruned model does not train twice as fast as the dense one in half its memory.
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

from reconvene_agent.core.errors import ErrorCode

AGENT = str(Path(sys.executable).parent / "reconvene-agent")
IMAGES = 640
CLASSES = 10
SIDES = {
    "dense": ("--sparsity", "0"),
    "by default": ("--sparsity", "0.9"),
    "as the paper": ("--sparsity", "0.9", "--width", "density", "--sensitive", "dense", "--width-multiple", "1"),
    "and ×0.7": ("--sparsity", "0.9", "--width-multiplier", "0.7"),
}
"""What is trained: by the method's defaults, in the paper's reading, and with a width multiplier."""


def agent(*words: str) -> Any:
    done = subprocess.run([AGENT, *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    # There is nothing to learn in noise, so the model has not earned its place; what its training took is told all the same.
    document = json.loads(done.stdout)
    if "error" in document and document["error"]["code"] != ErrorCode.VERIFY_FAILED:
        raise SystemExit(f"'{' '.join(words)}' failed: {document['error']['detail']}")
    return document


def way(settings: dict[str, Any]) -> str:
    return settings["precision"] + (" channels-last" if settings["channels_last"] else "")


def images(path: Path) -> Path:
    draw = np.random.default_rng(0)
    np.savez(path, x=draw.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8), y=np.arange(IMAGES) % CLASSES)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="compute in the plain way")
    given = parser.parse_args()
    epochs = ("--epochs", "2") if given.plain else ("--epochs", "500", "--patience", "4")
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        bundle, data = f"{name}/bundle", str(images(Path(name) / "data.npz"))
        agent("bundle", "create", "--model", "vgg16", "--input", "3x32x32", "--classes", str(CLASSES), "--seed", "0", bundle)
        for number in range(given.rounds):
            for side, knobs in SIDES.items():
                run = agent(
                    *("specialize", "--bundle", bundle, "--data", data, "--out", f"{name}/{side}-{number}"),
                    *(*knobs, *epochs, "--training-memory-mb", "1e6", "--learning-rate", "0.01"),
                )
                found[side].append(run["training"])
    speed, memory = (
        {side: statistics.median(run[what] for run in runs) for side, runs in found.items()}
        for what in ("images_per_second", "memory_mb")
    )
    ways = {side: ", ".join(sorted({way(run["settings"]) for run in runs})) for side, runs in found.items()}
    for side in SIDES:
        faster, share = speed[side] / speed["dense"], memory[side] / memory["dense"]
        figures = f"{speed[side]:6.0f} images/s {memory[side]:6.0f} MiB above the libraries"
        print(f"{side:<14}{figures}   {faster:5.2f}× as fast in {share:.2f}× the memory   {ways[side]}")
    held = all(speed[side] >= 2 * speed["dense"] and memory[side] <= memory["dense"] / 2 for side in SIDES if side != "dense")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
