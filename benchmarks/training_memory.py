"""Does training keep to its limit of memory? Estimate, measure and limit, for limits that force small pieces.

Each run is `reconvene-agent specialize` as a user starts it: one epoch on random inputs, with less and less memory for
training, down to where it is refused. Measured is the peak of the worker process above what it took when only its libraries
were loaded, the rehearsal included. Fails where a peak is above its limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

AGENT = [str(Path(sys.executable).parent / "reconvene-agent")]
MODELS: dict[str, tuple[tuple[int, ...], float]] = {
    "vgg16": ((3, 32, 32), 0.9),
    "resnet20": ((3, 32, 32), 0.8),
    "mlp": ((64,), 0.8),
}
SHARES = (1.0, 0.6, 0.4, 0.25, 0.15)
"""Limits, as shares of what training takes without one."""
INPUTS = 640
CLASSES = 10


def data(path: Path, shape: tuple[int, ...]) -> Path:
    draw = np.random.default_rng(0)
    images = len(shape) == 3
    x = draw.integers(0, 256, (INPUTS, *shape), dtype=np.uint8) if images else draw.standard_normal((INPUTS, *shape), np.float32)
    np.savez(path, x=x, y=np.arange(INPUTS) % CLASSES)
    return path


def specialize(folder: Path, name: str, limit: float | None) -> dict[str, Any]:
    """Run a whole specialisation and return its document."""
    shape, sparsity = MODELS[name]
    bundle = folder / name
    if not bundle.exists():
        make = ["bundle", "create", str(bundle), "--model", name, "--input", "x".join(map(str, shape))]
        subprocess.run([*AGENT, *make, "--classes", str(CLASSES), "--seed", "0"], check=True, capture_output=True)
    # Less than a gigabyte, so that planning leaves nothing behind in any of them.
    budget = ["--training-memory-mb", str(limit or 1000.0), "--latency-ms", "1e6", "--memory-mb", "1e6"]
    out = folder / f"{name}-{limit}"
    paths = ["--bundle", str(bundle), "--data", str(data(folder / f"{name}.npz", shape)), "--out", str(out)]
    fixed = ["--sparsity", str(sparsity), "--epochs", "1", "--learning-rate", "0.01", "--json"]
    done = subprocess.run([*AGENT, "specialize", *paths, *fixed, *budget], capture_output=True, text=True, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def row(name: str, limit: float | None, document: dict[str, Any]) -> bool:
    """Print how a run went, whatever its model is worth; return whether it kept to its limit."""
    allowed = "-" if limit is None else f"{limit:.0f}"
    if "training" not in document:
        print(f"{name:<10}{allowed:>8}{'':>10}{'':>10}   refused: {document['error']['code']}")
        return document["error"]["code"] in ("INFEASIBLE", "NO_MEMORY")
    training = document["training"]
    settings = training["settings"]
    measured = training["memory_mb"]
    ways = [f"{settings['micro_batch']} of {training['batch']} at a time"]
    ways += [word for key, word in (("spare", "sparing"), ("recompute", "computing anew")) if settings[key]]
    speed = f"{training['images_per_second']:.0f} inputs/s"
    print(f"{name:<10}{allowed:>8}{settings['memory_mb']['estimate']:>10.0f}{measured:>10.0f}   {', '.join(ways)}; {speed}")
    return limit is None or measured <= limit


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{'MiB':<10}{'limit':>8}{'estimate':>10}{'measured':>10}")
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in MODELS:
            free = specialize(folder, model, None)
            row(model, None, free)
            for share in SHARES:
                limit = float(round(share * free["training"]["memory_mb"]))
                good = row(model, limit, specialize(folder, model, limit)) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
