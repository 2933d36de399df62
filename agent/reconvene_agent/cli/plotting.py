"""A plan as a picture: latency, memory and size over sparsity, the budget across them. The only home of matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconvene_agent.core import atomic
from reconvene_agent.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")
_LIMIT, _INK, _GREY = "#c53030", "#1a202c", "#718096"
_INCHES = (11.0, 4.6)
_FAR = 4.0
_FEW_TIMES = 8.0
_STYLE: Any = {  # matplotlib names the type of its keys in one version and not in the next
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "grid.color": "#e2e8f0",
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text that can be searched and read aloud
    "svg.hashsalt": "reconvene-agent",  # the same plan, the same file
}


def check(path: Path) -> None:
    """Refuse a picture that could not be drawn, before any work is done for it.

    Raises:
        UsageError: its name is not that of a PNG or SVG file in a folder that is there, or matplotlib is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: name a file that ends in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--plot {path} is a folder: name a file")
    try:
        import matplotlib  # noqa: F401 - whether it is there
    except ImportError:
        raise UsageError("--plot needs matplotlib: install 'reconvene-agent[plot]'") from None


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw a plan's document, one line per width multiplier, and store the picture.

    Raises:
        AgentError: NO_DISK when the disk is full.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=_INCHES, layout="constrained")
        latency, memory, size = figure.subplots(1, 3)
        _draw_latency(latency, document)
        _draw_costs(memory, document, "memory_mb", "inference memory, MiB", _memory, _memory_measured)
        _draw_costs(size, document, "model_mb", "ONNX file, MiB", _size, _never)
        handles, labels = size.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=8, frameon=False)
        picture = io.BytesIO()
        kind = path.suffix.lower().removeprefix(".")
        figure.savefig(picture, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    with atomic.full_disk_is_no_disk(f"writing {path}"):
        atomic.write_bytes(path, picture.getvalue())


Candidates = list[dict[str, Any]]


def _columns(document: dict[str, Any]) -> list[tuple[float, Candidates, Any]]:
    """Return each width multiplier with its candidates and its colour, from the widest down."""
    from matplotlib import colormaps

    widths = sorted({candidate["width_multiplier"] for candidate in document["candidates"]}, reverse=True)
    shades = colormaps["viridis"]
    return [
        (
            width,
            [candidate for candidate in document["candidates"] if candidate["width_multiplier"] == width],
            shades(0.85 * index / max(1, len(widths) - 1)),
        )
        for index, width in enumerate(widths)
    ]


def _draw_latency(axes: Axes, document: dict[str, Any]) -> None:
    """Draw what was measured: a point for each p95, a thin line down to the median, hollow where it is in doubt."""
    for width, candidates, colour in _columns(document):
        measured = [candidate for candidate in candidates if candidate["latency_ms"]]
        x = [candidate["sparsity"] for candidate in measured]
        p95 = [candidate["latency_ms"]["p95"] for candidate in measured]
        axes.plot(x, p95, color=colour, label=f"width ×{width:g}")
        axes.vlines(x, [candidate["latency_ms"]["p50"] for candidate in measured], p95, color=colour, linewidth=1, alpha=0.6)
        _points(axes, x, p95, colour, [not candidate["doubts"] for candidate in measured])
    label, marked = _marked(document)
    if marked is not None and marked["latency_ms"]:
        _mark(axes, marked["sparsity"], marked["latency_ms"]["p95"], label)
    _limits(axes, document, ("latency_ms", "latency_p50_ms"))
    _finish(axes, "latency: p95, line down to p50, ms")


def _draw_costs(
    axes: Axes,
    document: dict[str, Any],
    limit: str,
    title: str,
    cost: Callable[[dict[str, Any]], float],
    measured: Callable[[dict[str, Any]], bool],
) -> None:
    """Draw what follows from shapes, hollow, and filled what was measured."""
    for width, candidates, colour in _columns(document):
        x, y = [candidate["sparsity"] for candidate in candidates], [cost(candidate) for candidate in candidates]
        axes.plot(x, y, color=colour, label=f"width ×{width:g}")
        _points(axes, x, y, colour, [measured(candidate) for candidate in candidates])
    label, marked = _marked(document)
    if marked is not None:
        _mark(axes, marked["sparsity"], cost(marked), label)
    axes.plot([], [], "o", color=_GREY, label="measured")
    axes.plot([], [], "o", color=_GREY, markerfacecolor="white", label="computed, or in doubt")
    axes.plot([], [], "--", color=_LIMIT, label="limit")
    _limits(axes, document, (limit,))
    _finish(axes, title)


def _marked(document: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return the candidate that the plan is about, and what it is: the chosen one, or the nearest miss."""
    miss = document["nearest_miss"]
    if document["chosen"] is not None or miss is None:
        return "chosen", document["chosen"]
    knobs = ("width_multiplier", "sparsity")
    return "nearest miss", next(each for each in document["candidates"] if all(each[knob] == miss[knob] for knob in knobs))


def _points(axes: Axes, x: list[float], y: list[float], colour: Any, filled: list[bool]) -> None:
    for a, b, solid in zip(x, y, filled, strict=True):
        axes.plot(a, b, "o", color=colour, markerfacecolor=colour if solid else "white", zorder=3)


def _mark(axes: Axes, x: float, y: float, label: str) -> None:
    axes.plot(x, y, "o", color=_LIMIT, markerfacecolor="none", markersize=13, markeredgewidth=1.6, label=label, zorder=4)


def _highest(axes: Axes) -> float:
    """Return the highest value drawn, 0 where there is none."""
    highest = axes.dataLim.ymax
    return highest if math.isfinite(highest) else 0.0


def _limits(axes: Axes, document: dict[str, Any], names: tuple[str, ...]) -> None:
    """Draw each limit with its name; one far above all that is drawn is named at the upper edge, and squeezes nothing."""
    highest = _highest(axes)
    for name in names:
        limit = document["budget"].get(name)
        if limit is None:
            continue
        near = limit["value"] <= _FAR * highest
        if near:
            axes.axhline(limit["value"], color=_LIMIT, linestyle="--", linewidth=1)
        axes.annotate(
            f"{name} {limit['value']:.4g}" + ("" if near else " ↑"),
            (0.02, limit["value"]) if near else (0.98, 0.99),
            xycoords=("axes fraction", "data" if near else "axes fraction"),
            xytext=(0, 2 if near else 0),
            textcoords="offset points",
            verticalalignment="bottom" if near else "top",
            horizontalalignment="left" if near else "right",
            color=_LIMIT,
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            zorder=5,
        )


def _finish(axes: Axes, title: str) -> None:
    """Label the axes; what spans more than a few times its least value is drawn by its logarithm."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_title(title, loc="left")
    axes.set_xlabel("sparsity")
    axes.set_xlim(-0.04, 1.04)
    if not _highest(axes):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, horizontalalignment="center", color=_GREY)
        return
    axes.grid(visible=True, which="major")
    if axes.dataLim.ymax < _FEW_TIMES * axes.dataLim.ymin:
        axes.set_ylim(bottom=0.0)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _memory(candidate: dict[str, Any]) -> float:
    return float(candidate["memory_mb"] if candidate["memory_measured_mb"] is None else candidate["memory_measured_mb"])


def _memory_measured(candidate: dict[str, Any]) -> bool:
    return candidate["memory_measured_mb"] is not None


def _size(candidate: dict[str, Any]) -> float:
    return float(candidate["bytes"]) / 2**20


def _never(_candidate: dict[str, Any]) -> bool:
    return False
