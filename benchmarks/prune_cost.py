"""What pruning VGG-16 costs on one core: seconds of work (imports apart) and peak memory, against the textbook way.

The textbook way, in the same run: build the dense model, draw its weights, sort all magnitudes. Prints medians and fails
when pruning takes more than its limit.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S = 1.0
RUNS = 7

TEXTBOOK = """
import json, resource, time, torch
torch.set_num_threads(1)
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import initial, registry
start = time.perf_counter()
model = initial.materialize(registry.build(ModelSpec("vgg16", (3, 32, 32), 10)), 0)
weights = [m.weight.detach() for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
everything = torch.cat([w.abs().flatten() for w in weights])
cut = torch.sort(everything, descending=True).values[everything.numel() // 10]
kept = [int((w.abs() >= cut).sum()) for w in weights]
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def run(words: list[str]) -> dict[str, object]:
    done = subprocess.run(words, capture_output=True, check=True)
    document: dict[str, object] = json.loads(done.stdout)
    return document


def main() -> int:
    program = str(Path(sys.executable).parent / "reconvene-agent")
    with tempfile.TemporaryDirectory() as name:
        bundle = str(Path(name) / "bundle")
        create = [program, *"bundle create --model vgg16 --input 3x32x32 --classes 10 --seed 0".split(), bundle]
        subprocess.run(create, check=True, capture_output=True)
        prune = [program, "prune", bundle, "--sparsity", "0.9", "--threads", "1", "--json", "--out", str(Path(name) / "out")]
        ours, theirs = [], []
        for _ in range(RUNS):
            document = run(prune)
            ours.append((document["seconds"]["total"], document["peak_rss_mb"]))
            document = run([sys.executable, "-c", TEXTBOOK])
            theirs.append((document["seconds"], document["peak"]))
    (seconds, peak), (sort_seconds, sort_peak) = (
        [statistics.median(c) for c in zip(*rows, strict=True)] for rows in (ours, theirs)
    )
    print(f"prune VGG-16 to 0.9     {seconds:6.2f} s   peak {peak:5.0f} MiB  (limit {LIMIT_S:.0f} s)")
    print(f"dense model and sort    {sort_seconds:6.2f} s   peak {sort_peak:5.0f} MiB")
    print(f"ratio                   {sort_seconds / seconds:6.2f}×       {sort_peak / peak:5.2f}×")
    return 0 if seconds <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
