"""What two processors make of the same model: logits of a deployed model, and pruned models, side by side.

``compare.py logits MODEL.onnx DIGITS.npz OUT.npz`` runs the model over all digits and stores the logits, (N, classes). It needs
NumPy and ONNX Runtime alone, so that it runs on either side. ``compare.py same A.npz B.npz`` and ``compare.py pruned A B``, for
folders that ``prune`` has written, print one line and leave with 1 where the two sides disagree.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np

LOGITS = 1e-4
"""By how much logits may differ: the same sums in another order."""
WEIGHTS = 1e-5
"""By how much weights drawn from the same seed may differ, in standard deviations: other roundings of logarithm and cosine."""


def logits(model: str, digits: str, out: str) -> str:
    """Run the model over the digits, which are prepared as the model's own notes say."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    mean, deviation = (np.array(json.loads(notes[name]), np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    with np.load(digits) as archive:
        pixels, classes = archive["x"], archive["y"]
    images = (pixels[:, None].astype(np.float32) / np.float32(255) - mean) / deviation
    found = np.concatenate([session.run(None, {"image": part})[0] for part in np.array_split(images, 16)])
    np.savez(out, logits=found, classes=classes)
    return f"{platform.machine()}: {len(found)} inputs, {np.mean(found.argmax(1) == classes):.1%} right"


def same(one: str, other: str) -> str:
    """Hold the logits of two sides against each other."""
    with np.load(one) as first, np.load(other) as second:
        a, b = first["logits"], second["logits"]
    if a.shape != b.shape or not a.size:
        sys.exit(f"logits of shape {a.shape} and {b.shape}")
    apart = float(np.abs(a - b).max())
    unlike = int((a.argmax(1) != b.argmax(1)).sum())
    told = f"{len(a)} inputs, {unlike} answers differ, logits at most {apart:.1e} apart"
    if not apart <= LOGITS:  # nor not a number
        sys.exit(told)
    return told


def pruned(one: str, other: str) -> str:
    """Hold two pruned models against each other: the same design, the same masks, and the same weights but for rounding."""
    from safetensors.numpy import load_file

    designs = [json.loads((Path(folder) / "pruned.json").read_text()) for folder in (one, other)]
    if designs[0] != designs[1]:
        sys.exit("another design")
    ours, theirs = (load_file(Path(folder) / "pruned.safetensors") for folder in (one, other))
    if {name: tensor.shape for name, tensor in ours.items()} != {name: tensor.shape for name, tensor in theirs.items()}:
        sys.exit("tensors of other shapes")
    masked = equal = 0
    apart = 0.0
    for name, a in ours.items():
        b = theirs[name]
        if not np.array_equal(a == 0, b == 0):
            sys.exit(f"{name} has another mask")
        equal += int((a == b).sum())
        if a.ndim > 1:
            masked += int((a == 0).sum())
            apart = max(apart, float(np.abs(a - b).max() / a.std()))
    count = sum(tensor.size for tensor in ours.values())
    told = f"same widths and masks ({masked:,} zeros), {equal:,} of {count:,} values equal, others at most {apart:.1e} σ apart"
    if not apart <= WEIGHTS:
        sys.exit(told)
    return told


if __name__ == "__main__":
    commands: dict[str, Callable[..., str]] = {"logits": logits, "same": same, "pruned": pruned}
    print(commands[sys.argv[1]](*sys.argv[2:]))
