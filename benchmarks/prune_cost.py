"""What pruning costs, against Torch-Pruning's global magnitude pruner on the same models: seconds and peak memory.

Both start from the same shipped weights and end with a small model in memory; each runs in a process of its own, on one
core, the two in turn. Imports count for neither. Our memory is also set against what it must be at least: the largest layer
and the pruned model with its masks where weights are shipped, the pruned model alone where a seed tells them. Prints
medians, draws a plot (PNG and SVG), and fails where VGG-16 takes more than half of Torch-Pruning's time from shipped
weights, or more than 1.2 times the least memory from these or from a seed.
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

SPARSITY = 0.9
MODELS: dict[str, tuple[tuple[int, int, int], int]] = {
    "vgg16": ((3, 32, 32), 10),
    "resnet50": ((3, 224, 224), 1000),
    "mobilenet_v2": ((3, 224, 224), 1000),
    "vit_tiny": ((3, 224, 224), 1000),
    "vit_base": ((3, 224, 224), 1000),
}
MAX_SHARE_OF_TIME = 0.5
MAX_TIMES_LEAST_MEMORY = 1.2
WAYS = ("weights", "seed", "torch-pruning")


def child(way: str, model: str, bundles: Path) -> dict[str, Any]:
    """Prune once in this process and return its figures; memory in MiB above the imported libraries."""
    import time

    import torch

    torch.set_num_threads(1)
    _know_vit_base()
    from reconvene_agent.core.options import MethodOptions
    from reconvene_agent.worker import memory
    from reconvene_agent.worker.models.opened import open_bundle
    from reconvene_agent.worker.reconvene.method import Reconvene

    # Each prunes a small model first: what it imports and compiles on the way belongs to the libraries.
    for name in ("warm", model):
        before = memory.settled_mb()
        memory.start_peak()
        started = time.perf_counter()
        if way == "torch-pruning":
            kept = _torch_pruning(bundles / f"{name}-weights").state_dict().values()
        else:
            bundle = open_bundle(bundles / f"{name}-{way}")
            method = Reconvene(bundle, MethodOptions())
            pruned = method.build(method.design([SPARSITY])[0])
            kept = [*pruned.module.state_dict().values(), *pruned.masks.values()]
        seconds = time.perf_counter() - started
        peak = memory.peak_mb() - before
    largest = 0 if way == "torch-pruning" else max(layer.weights for layer in method.design([0.0])[0].layers)
    size = sum(tensor.nbytes for tensor in kept)
    return {"seconds": seconds, "peak": peak, "pruned": size / 2**20, "largest": 4 * largest / 2**20}


def _know_vit_base() -> None:
    from reconvene_agent.worker.models import registry
    from reconvene_agent.worker.models.vit import ViT

    registry.BUILDERS["vit_base"] = lambda spec: ViT(spec, width=768, depth=12, heads=12, patch=16)


def _torch_pruning(folder: Path) -> Any:
    """Prune a bundle's dense model by the same share of its weights with Torch-Pruning."""
    import torch
    import torch_pruning
    from torch import nn

    from reconvene_agent.worker.models.opened import open_bundle

    bundle = open_bundle(folder)
    dense = bundle.dense().eval()
    answer = [layer for layer in dense.modules() if isinstance(layer, nn.Linear)][-1:]
    heads = {
        layer: layer.out_features // 64
        for name, layer in dense.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(("query", "key", "value"))
    }
    pruner = torch_pruning.pruner.BasePruner(
        dense,
        torch.zeros(1, *bundle.spec.input),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        global_pruning=True,
        # It prunes channels, the method weights: a layer with a share c of its channels has about c² of its weights.
        pruning_ratio=1 - (1 - SPARSITY) ** 0.5,
        ignored_layers=answer,
        num_heads=heads,
        prune_num_heads=bool(heads),
        prune_head_dims=not heads,
    )
    pruner.step()
    return dense


def prepare(folder: Path) -> None:
    """Make the bundles, with weights and with a seed alone."""
    from reconvene_agent.core import atomic, bundle
    from reconvene_agent.core.bundle import BundleManifest, ModelSpec
    from reconvene_agent.worker.models import initial, registry, weights

    _know_vit_base()
    specs = {name: ModelSpec(name, shape, classes) for name, (shape, classes) in MODELS.items()}
    specs["warm"] = ModelSpec("resnet20", (3, 16, 16), 10)
    for name, spec in specs.items():
        for way in ("weights", "seed"):
            made = folder / f"{name}-{way}"
            made.mkdir()
            files = {}
            if way == "weights":
                weights.write(initial.materialize(registry.build(spec), 0), made / bundle.WEIGHTS)
                files = {bundle.WEIGHTS: atomic.sha256(made / bundle.WEIGHTS)}
            bundle.write_manifest(made, BundleManifest(bundle.FORMAT, spec, 0, (), files))


def run(way: str, model: str, folder: Path) -> dict[str, Any] | None:
    done = subprocess.run([sys.executable, __file__, "--child", way, model, str(folder)], stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def measure(folder: Path, runs: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return the medians by model and way."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {model: {way: [] for way in WAYS} for model in MODELS}
    for turn in range(runs):
        for model in MODELS:
            for way in WAYS:
                print(f"\rrun {turn + 1} of {runs}: {model}, {way}".ljust(60), end="", file=sys.stderr, flush=True)
                figures = run(way, model, folder)
                if figures is not None:
                    found[model][way].append(figures)
    print("\r".ljust(60) + "\r", end="", file=sys.stderr)
    return {
        model: {way: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for way, rows in ways.items() if rows}
        for model, ways in found.items()
    }


def show(medians: dict[str, dict[str, dict[str, float]]]) -> bool:
    """Print the tables; return whether the promises hold."""
    print(f"{'model':<14}{'pruned here':>22}{'Torch-Pruning':>22}{'ratio':>20}")
    for model, ways in medians.items():
        ours, theirs = ways["weights"], ways.get("torch-pruning")
        row = f"{model:<14}{ours['seconds']:>9.2f} s {ours['peak']:>6.0f} MiB"
        if theirs is None:
            print(f"{row}{'it fails':>22}")
            continue
        share, room = ours["seconds"] / theirs["seconds"], ours["peak"] / theirs["peak"]
        print(f"{row}{theirs['seconds']:>10.2f} s {theirs['peak']:>6.0f} MiB{share:>9.2f}× {room:>6.2f}×")
    print(f"\n{'model':<14}{'bundle':>9}{'peak':>10}{'pruned':>10}{'largest':>10}{'peak / least':>15}   (MiB)")
    for model, ways in medians.items():
        for way in ("weights", "seed"):
            row, times = ways[way], times_least(ways[way], way)
            print(f"{model:<14}{way:>9}{row['peak']:>10.1f}{row['pruned']:>10.1f}{row['largest']:>10.1f}{times:>14.2f}×")
    vgg = medians["vgg16"]
    share = vgg["weights"]["seconds"] / vgg["torch-pruning"]["seconds"]
    room = max(times_least(vgg[way], way) for way in ("weights", "seed"))
    print(f"\nVGG-16 from weights: {share:.2f}× of Torch-Pruning's time (aim {MAX_SHARE_OF_TIME:g}×),", end=" ")
    print(f"from these or a seed at most {room:.2f}× of the least memory (aim {MAX_TIMES_LEAST_MEMORY:g}×)")
    return share <= MAX_SHARE_OF_TIME and room <= MAX_TIMES_LEAST_MEMORY


def times_least(row: dict[str, float], way: str) -> float:
    return row["peak"] / (row["pruned"] + (row["largest"] if way == "weights" else 0.0))


def draw(medians: dict[str, dict[str, dict[str, float]]], out: Path) -> None:
    """Draw both comparisons into ``prune-cost.png`` and ``.svg``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), dpi=110)
    names = list(medians)
    for panel, key, title in ((left, "seconds", "seconds, one core"), (right, "peak", "peak memory above the libraries, MiB")):
        for offset, (way, label, colour) in enumerate(
            (
                ("seed", "here, from a seed", "#56B4E9"),
                ("weights", "here, from shipped weights", "#0072B2"),
                ("torch-pruning", "Torch-Pruning, from shipped weights", "#E69F00"),
            )
        ):
            places = [index + 0.27 * (offset - 1) for index in range(len(names))]
            values = [medians[name].get(way, {}).get(key, 0.0) for name in names]
            panel.bar(places, values, 0.25, label=label, color=colour)
            for place, value in zip(places, values, strict=True):
                text = f"{value:.2g}" if value < 10 else f"{value:.0f}"
                panel.annotate(text if value else "fails", (place, value), ha="center", va="bottom", fontsize=7)
        panel.set_yscale("log")
        panel.set_title(title, loc="left", fontsize=11)
        panel.set_xticks(range(len(names)), names)
        panel.margins(y=0.12)
        panel.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=9, loc="upper left")
    figure.suptitle(f"Pruning to {SPARSITY:g} at initialisation", x=0.01, ha="left")
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "prune-cost"
    for kind in ("png", "svg"):
        figure.savefig(out / f"prune-cost.{kind}", metadata={"Date": None} if kind == "svg" else None)
        print(f"wrote {out / f'prune-cost.{kind}'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/prune-cost"), help="folder of the figures and the plot")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, model, folder = arguments.child
        print(json.dumps(child(way, model, Path(folder))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        medians = measure(Path(name), arguments.runs)
    holds = show(medians)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "prune-cost.json").write_text(json.dumps(medians, indent=1))
    try:
        draw(medians, arguments.out)
    except ImportError:
        print("the plot needs matplotlib: .venv/bin/pip install matplotlib", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
