"""Draws method.svg from what `reconvene-agent prune … --json` prints: python draw_method.py < prune.json > method.svg."""

from __future__ import annotations

import json
import sys
from html import escape

WIDTH, HEIGHT = 900, 476
BLUE, ORANGE, PALE, INK, GREY = "#2b6cb0", "#dd6b20", "#e2e8f0", "#1a202c", "#718096"
STAGES = [
    ("dense model", "at initialisation,", "as it was shipped"),
    ("Pre-processor", "score every weight,", "keep the largest 10 %"),
    ("PSE", "denser than average?", "sensitive, else resilient"),
    ("RLR", "a resilient layer keeps", "√d·n of n filters"),
    ("Post-processor", "neighbours are fitted,", "masks drawn anew"),
    ("small model", "trained on the board,", "deployed as ONNX"),
]


def text(
    x: float, y: float, content: str, size: int = 12, color: str = INK, anchor: str = "middle", weight: str = "normal"
) -> str:
    style = f'font-size="{size}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'


def stages() -> list[str]:
    step, box = (WIDTH - 20) / len(STAGES), (WIDTH - 20) / len(STAGES) - 18
    parts = []
    for index, (title, first, second) in enumerate(STAGES):
        x = 10 + index * step
        color = INK if index in (0, len(STAGES) - 1) else BLUE
        parts.append(
            f'<rect x="{x:.1f}" y="14" width="{box:.1f}" height="72" rx="6" fill="white" stroke="{color}" stroke-width="1.5"/>'
        )
        middle = x + box / 2
        parts += [
            text(middle, 36, title, 13, color, weight="bold"),
            text(middle, 56, first, 10.5),
            text(middle, 72, second, 10.5),
        ]
        if index + 1 < len(STAGES):
            parts.append(f'<path d="M{x + box + 3:.1f} 50 h9 l-4 -4 m4 4 l-4 4" stroke="{GREY}" fill="none" stroke-width="1.5"/>')
    return parts


def chart(document: dict) -> list[str]:
    layers = document["layers"]
    average = sum(layer["density"] for layer in layers) / len(layers)
    left, base, tall = 64, 408, 224
    step = (WIDTH - left - 16) / len(layers)
    widest = max(layer["width_before"] for layer in layers)
    parts = [
        text(
            left,
            128,
            f"VGG-16 at sparsity {document['sparsity']:g}: filters of each convolution, before and after",
            14,
            anchor="start",
            weight="bold",
        )
    ]
    parts += [text(left, 148, f"average density {average:.3f}", 12, GREY, "start")]
    for offset, color, label in (
        (150, BLUE, "sensitive: keeps its width and its mask"),
        (430, ORANGE, "resilient: narrower and dense"),
    ):
        parts.append(f'<rect x="{left + offset}" y="138" width="12" height="12" fill="{color}"/>')
        parts.append(text(left + offset + 18, 148, label, 12, INK, "start"))
    for mark in (128, 256, 384, 512):
        y = base - tall * mark / widest
        parts.append(f'<path d="M{left} {y:.1f} H{WIDTH - 16}" stroke="{PALE}"/>')
        parts.append(text(left - 8, y + 4, str(mark), 11, GREY, "end"))
    for index, layer in enumerate(layers):
        x, bar = left + index * step + step * 0.16, step * 0.68
        color = BLUE if layer["verdict"] == "sensitive" else ORANGE
        for width, fill, stroke in ((layer["width_before"], PALE, GREY), (layer["width_after"], color, color)):
            high = tall * width / widest
            parts.append(
                f'<rect x="{x:.1f}" y="{base - high:.1f}" width="{bar:.1f}" height="{high:.1f}" '
                f'fill="{fill}" stroke="{stroke}" stroke-width="0.8"/>'
            )
        top = base - tall * layer["width_before"] / widest
        parts.append(text(x + bar / 2, top - 6, str(layer["width_after"]), 12, color, weight="bold"))
        parts.append(text(x + bar / 2, base + 16, layer["name"].removeprefix("features."), 10.5))
        parts.append(text(x + bar / 2, base + 32, f"d = {layer['density']:.2f}", 10.5, GREY))
    params = document["params"]
    line = f"{params['dense']:,} parameters become {params['stored']:,}, {params['dense'] / params['stored']:.1f} times fewer"
    parts.append(text(WIDTH / 2, HEIGHT - 14, line, 13))
    return parts


def main() -> None:
    document = json.load(sys.stdin)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, sans-serif">'
    body = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *stages(), *chart(document)]
    sys.stdout.write("\n".join([head, *body, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
