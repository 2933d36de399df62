"""The plot: accuracy over latency and over bytes for each model, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy import labels
from accuracy.arms import RIVALS, as_fast_as
from accuracy.labels import Box
from accuracy.summary import Row

NAME = "accuracy-latency"

# Okabe and Ito's colours, which the colour-blind can tell apart; the shape of the marker says it once more.
FAMILIES = {
    "dense": ("dense network", "#000000", "s"),
    "unstructured": ("unstructured counterpart", "#000000", "X"),
    "reading": ("Reconvene, readings of the paper (average/width)", "#0072B2", "o"),
    "ours": ("ours: as fast as ×…, half its bytes", "#D55E00", "D"),
    "criteria": ("ours by other criteria", "#D55E00", "h"),
    "shrink": ("every layer by √density", "#CC79A7", "P"),
    "narrower": ("uniformly narrower ×", "#666666", "v"),
    "filter norm": ("filters by norm", "#009E73", "^"),
    "search": ("random search", "#E69F00", "*"),
    "permuted": ("permuted densities (null control)", "#56B4E9", "p"),
}
MARKER_PIXELS = 7.0


def draw(models: Mapping[str, Mapping[str, Row]], caption: str, folder: Path) -> list[Path]:
    """Draw the plot of all models that have measured rows, and return the files.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise SystemExit("the plot needs matplotlib: .venv/bin/pip install matplotlib, then add --plot-only") from None
    shown = {model: [row for row in rows.values() if row.p50 and row.size] for model, rows in models.items()}
    shown = {model: rows for model, rows in shown.items() if rows}
    if not shown:
        return []
    # Text stays text in the SVG; letters are outlined nowhere else.
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = NAME
    figure, grid = pyplot.subplots(len(shown), 2, figsize=(15, 1.5 + 7 * len(shown)), dpi=110, squeeze=False, sharey="row")
    for panels, (model, rows) in zip(grid, shown.items(), strict=True):
        seeds = min(row.seeds for row in rows), max(row.seeds for row in rows)
        counted = f"{seeds[1]} seed{'s' if seeds[1] > 1 else ''}" if seeds[0] == seeds[1] else f"{seeds[0]} to {seeds[1]} seeds"
        for panel, (name, title) in zip(panels, (("p50", "latency"), ("size", "size of the file")), strict=True):
            _panel(panel, rows, name)
            panel.set_title(f"{model}: accuracy over {title}, {counted}", fontsize=11, loc="left")
        panels[0].set_xlabel("p50 latency in ms: batch 1, one thread, ONNX Runtime")
        panels[1].set_xlabel("bytes of the ONNX file")
        panels[0].set_ylabel("held-out accuracy in %; bars: range over seeds")
    families = [family for family in FAMILIES if any(row.arm.family == family for rows in shown.values() for row in rows)]
    _legend(figure, families)
    top = 1 - 1.0 / figure.get_figheight()
    figure.text(0.5, 0.006, caption, ha="center", va="bottom", fontsize=8, color="0.35")
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, top), h_pad=2.0)
    figure.canvas.draw()
    for panels, rows in zip(grid, shown.values(), strict=True):
        for panel, name in zip(panels, ("p50", "size"), strict=True):
            _label(panel, rows, name)
    files = [folder / f"{NAME}.{kind}" for kind in ("png", "svg")]
    for file in files:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
    return files


def _panel(panel: Any, rows: Sequence[Row], name: str) -> None:
    if name == "size":
        panel.set_xscale("log")
        _byte_ticks(panel.xaxis)
    for line in _lines(rows):
        colour = FAMILIES[line[0].arm.family][1]
        panel.plot([getattr(row, name) for row in line], [row.accuracy for row in line], color=colour, linewidth=0.9, alpha=0.5)
    for row in rows:
        _, colour, marker = FAMILIES[row.arm.family]
        panel.errorbar(
            getattr(row, name),
            row.accuracy,
            yerr=row.spread if row.seeds > 1 else None,
            color=colour,
            marker=marker,
            markersize=MARKER_PIXELS if marker != "*" else 11,
            markerfacecolor="white" if "masked" in row.arm.name else colour,
            elinewidth=0.8,
            capsize=2,
            zorder=3,
        )
    low = min(row.accuracy - row.spread for row in rows)
    high = max(row.accuracy + row.spread for row in rows)
    room = max(0.5, 0.09 * (high - low))
    panel.set_ylim(low - room, high + room)
    panel.margins(x=0.09)
    panel.grid(visible=True, color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _byte_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda size, _: f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} kB"))
    axis.set_minor_formatter(NullFormatter())


def _lines(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows that a line joins: the narrower networks with the dense one, and ours."""
    by_name = {row.arm.name: row for row in rows}
    narrower = sorted((row for row in rows if row.arm.family in ("narrower", "dense")), key=lambda row: row.macs)
    # The dense one comes last and first gives the colour.
    ours = [by_name[as_fast_as(rival)] for rival in reversed(RIVALS) if as_fast_as(rival) in by_name]
    return [line for line in (narrower, ours) if len(line) > 1]


def _label(panel: Any, rows: Sequence[Row], name: str) -> None:
    # Rounded widths may make one network of two arms: one label is enough where they would say the same.
    rows = list({(getattr(row, name), row.accuracy, row.short): row for row in rows}.values())
    points = [(float(getattr(row, name)), row.accuracy) for row in rows]
    scale = panel.figure.dpi / 72
    half = MARKER_PIXELS * scale / 2 + 1
    obstacles: list[Box] = []
    for (x, y), row in zip(points, rows, strict=True):
        left, bottom = panel.transData.transform((x, y - row.spread))
        _, top = panel.transData.transform((x, y + row.spread))
        _, middle = panel.transData.transform((x, y))
        obstacles.append((left - half, middle - half, left + half, middle + half))
        obstacles.append((left - 2, bottom, left + 2, top))
    colours = [FAMILIES[row.arm.family][1] for row in rows]
    labels.annotate(panel, [row.short for row in rows], points, colours, obstacles, fontsize=8)


def _legend(figure: Any, families: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=FAMILIES[family][1], marker=FAMILIES[family][2], linestyle="", label=FAMILIES[family][0])
        for family in families
    ]
    hollow = Line2D(
        [], [], color="0.3", marker="o", markerfacecolor="white", linestyle="", label="hollow: sensitive layers masked"
    )
    figure.legend(handles=[*handles, hollow], loc="upper center", ncol=4, frameon=False, fontsize=9)
