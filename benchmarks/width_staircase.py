"""How latency grows with the width of a convolution in ONNX Runtime: the staircase behind a profile's ``width_multiple``.

Times a small network of 3×3 convolutions at many widths, in turn, at batch 1 on one thread, and prints for each the time and
how much slower it is than the next width that is a multiple of 4, 8, 16 or 32. A multiple is worth rounding up to when the
widths below it are slower than itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import measure, open_session

INPUT = (16, 16, 16)
MULTIPLES = (4, 8, 16, 32)


class Convolutions(nn.Module):
    """Three convolutions of one width: (N, 16, 16, 16) to (N, 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(INPUT[0], width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.three = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        found = self.three(self.two(self.one(images).relu()).relu()).relu()
        logits: Tensor = self.classifier(found.mean((2, 3)))
        return logits


def draw(p50: dict[int, float], folder: Path) -> None:
    """Draw latency over width, multiples of four filled."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        sys.exit("the plot needs matplotlib: .venv/bin/pip install matplotlib")
    mpl.rcParams["svg.hashsalt"] = "width-staircase"
    figure, panel = pyplot.subplots(figsize=(8.5, 3.6), dpi=110)
    widths = list(p50)
    panel.plot(widths, list(p50.values()), color="0.75", linewidth=0.8, zorder=1)
    for chosen, label, face in ((0, "multiple of four", "#0072B2"), (1, "other width", "white")):
        some = [width for width in widths if bool(width % 4) == bool(chosen)]
        panel.scatter(some, [p50[width] for width in some], s=22, facecolor=face, edgecolor="#0072B2", label=label, zorder=2)
    panel.set_xlabel("channels of three 3×3 convolutions, 16×16 places")
    panel.set_ylabel("p50 in ms, one thread")
    panel.set_xticks(range(widths[0] // 8 * 8, widths[-1] + 1, 8))
    panel.set_ylim(0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"width-staircase.{kind}", metadata={"Date": None} if kind == "svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", type=int, default=8)
    parser.add_argument("--to", dest="last", type=int, default=72)
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring")
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--out", type=Path, help="draw the staircase into this folder, as PNG and SVG")
    arguments = parser.parse_args()
    last = -(-arguments.last // MULTIPLES[-1]) * MULTIPLES[-1]
    widths = list(range(arguments.first, last + 1))
    runtime = Runtime(1, 1, (arguments.provider,), 128)
    exporter = Exporter(INPUT)
    torch.manual_seed(0)
    sessions = [open_session(exporter.to_onnx(Convolutions(width)).SerializeToString(), runtime) for width in widths]
    p50 = dict(zip(widths, (latency.p50 for latency in measure(sessions, arguments.seconds)), strict=True))
    if arguments.out:
        draw({width: p50[width] for width in range(arguments.first, arguments.last + 1)}, arguments.out)
    print("width    p50 ms   slower than the next multiple of  " + "".join(f"{multiple:>8}" for multiple in MULTIPLES))
    for width in range(arguments.first, arguments.last + 1):
        ratios = [p50[width] / p50[-(-width // multiple) * multiple] for multiple in MULTIPLES]
        print(f"{width:5}{p50[width]:10.4f}" + " " * 36 + "".join(f"{ratio:7.2f}×" for ratio in ratios))
    for multiple in MULTIPLES:
        below = [p50[width] / p50[-(-width // multiple) * multiple] for width in range(arguments.first, arguments.last + 1)]
        slower = sum(ratio > 1.05 for ratio in below) / len(below)
        print(f"multiple of {multiple}: {slower:.0%} of the widths are slower than the multiple they would be rounded up to")


if __name__ == "__main__":
    main()
