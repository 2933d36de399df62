"""How much smaller and faster the deployed model is than the dense one: VGG-16, sparsity 0.9, mean / density / dense.

Specialises a bundle on local images and times the result against the dense model, deployed the same way, at batch 1 on one
thread. Fails below the ratios that are promised.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MIN_SMALLER = 15.0
MIN_FASTER = 2.0
METHOD = ["--average", "mean", "--width", "density", "--sensitive", "dense", "--width-multiple", "1"]


def agent(*words: str) -> Any:
    program = str(Path(sys.executable).parent / "reconvene-agent")
    done = subprocess.run([program, *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="image folders of ten classes, 32×32, for instance CIFAR-10 as files")
    parser.add_argument("--epochs", default="1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundle, out = f"{name}/bundle", f"{name}/out"
        agent("bundle", "create", "--model", "vgg16", "--input", "3x32x32", "--classes", "10", "--seed", "0", bundle)
        data = ("--data", str(arguments.data), "--epochs", arguments.epochs)
        run = agent("specialize", "--bundle", bundle, *data, "--sparsity", "0.9", *METHOD, "--out", out)
        bench = agent("bench", bundle, out, "--threads", "1", "--seconds", "10")
    ratio = bench["ratio"]
    for side in ("dense", "pruned"):
        size, time = bench[side]["bytes"], bench[side]["latency_ms"]
        print(f"{side:<8}{size:>12,} bytes  p50 {time['p50']:7.3f} ms  p95 {time['p95']:7.3f} ms")
    print(f"smaller  {ratio['bytes']:.2f}×  (promised {MIN_SMALLER:g}×)")
    print(f"faster   {ratio['latency_p50']:.2f}×  at p50, batch 1, one thread (promised {MIN_FASTER:g}×)")
    print(f"accuracy {run['training']['accuracy']:.1%} after {run['training']['epochs']} epochs")
    return 0 if ratio["bytes"] >= MIN_SMALLER and ratio["latency_p50"] >= MIN_FASTER else 1


if __name__ == "__main__":
    sys.exit(main())
