"""Labels beside points that overlap neither each other nor a point: each goes to the nearest place that is free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""

DISTANCES = (7, 12, 18, 26, 36, 48, 62, 78, 96, 118, 144, 175)
DIRECTIONS = tuple(
    math.radians(degrees) for degrees in (0, 180, 90, 270, 35, 145, 215, 325, 60, 120, 240, 300, 15, 165, 195, 345)
)
LEADER_FROM = 18
"""Pixels; a label farther from its point than this gets a line to it."""
MARGIN = 2.0


def overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def place(
    sizes: Sequence[tuple[float, float]], points: Sequence[tuple[float, float]], obstacles: Sequence[Box], frame: Box
) -> list[Box]:
    """Return a box for each label (width, height) beside its point, inside ``frame``; crowded points choose first."""
    chosen: dict[int, Box] = {}
    leaders: list[list[Box]] = []
    crowd = [sum(math.dist(point, other) < 60 for other in points) for point in points]
    for index in sorted(range(len(points)), key=lambda number: -crowd[number]):
        taken = [*obstacles, *chosen.values(), *(dot for leader in leaders for dot in leader)]
        best: tuple[float, Box, list[Box]] | None = None
        for distance in DISTANCES:
            for direction in DIRECTIONS:
                box = _beside(points[index], sizes[index], distance, direction)
                leader = _leader(points[index], box) if distance >= LEADER_FROM else []
                cost = sum(overlap(box, other) for other in taken) + _outside(box, frame)
                cost += sum(overlap(dot, other) for dot in leader for other in chosen.values()) * 4
                if best is None or cost < best[0]:
                    best = (cost, box, leader)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        chosen[index] = best[1]
        leaders.append(best[2])
    return [chosen[index] for index in range(len(points))]


def _beside(point: tuple[float, float], size: tuple[float, float], distance: float, direction: float) -> Box:
    """Return the box whose nearest edge lies ``distance`` away from the point in that direction."""
    x, y = point[0] + distance * math.cos(direction), point[1] + distance * math.sin(direction)
    left = x - size[0] * (1 - math.cos(direction)) / 2
    bottom = y - size[1] * (1 - math.sin(direction)) / 2
    return (left - MARGIN, bottom - MARGIN, left + size[0] + MARGIN, bottom + size[1] + MARGIN)


def anchor(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """Return the place on a box that is nearest to a point."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _leader(point: tuple[float, float], box: Box) -> list[Box]:
    """Return small boxes along the line from the point to the label, but for its start, where the point itself is."""
    end = anchor(point, box)
    steps = max(2, int(math.dist(point, end) / 4))
    dots = []
    for step in range(2, steps):
        x, y = (a + (b - a) * step / steps for a, b in zip(point, end, strict=True))
        dots.append((x - 1, y - 1, x + 1, y + 1))
    return dots


def _outside(box: Box, frame: Box) -> float:
    whole = (box[2] - box[0]) * (box[3] - box[1])
    return 10 * (whole - overlap(box, frame))


def annotate(
    axes: Any,
    texts: Sequence[str],
    points: Sequence[tuple[float, float]],
    colours: Sequence[str],
    obstacles: Sequence[Box],
    **style: Any,
) -> None:
    """Write ``texts`` beside ``points`` (in data) of a finished panel; ``obstacles``, in pixels, are kept free."""
    from matplotlib.patheffects import withStroke

    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    drawn = [
        axes.text(0, 0, text, transform=None, va="bottom", ha="left", color=colour, **style)
        for text, colour in zip(texts, colours, strict=True)
    ]
    extents = [text.get_window_extent(renderer) for text in drawn]
    frame = axes.get_window_extent(renderer)
    boxes = place(
        [(e.width, e.height) for e in extents], pixels, obstacles, (frame.x0 + 3, frame.y0 + 3, frame.x1 - 3, frame.y1 - 3)
    )
    for text, point, box in zip(drawn, pixels, boxes, strict=True):
        back = axes.transData.inverted().transform((box[0] + MARGIN, box[1] + MARGIN))
        text.set_transform(axes.transData)
        text.set_position(tuple(back))
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        if math.dist(point, anchor(point, box)) >= LEADER_FROM - 4:
            ends = axes.transData.inverted().transform([point, anchor(point, box)])
            axes.plot(ends[:, 0], ends[:, 1], color="0.55", linewidth=0.6, zorder=1, scalex=False, scaley=False)
