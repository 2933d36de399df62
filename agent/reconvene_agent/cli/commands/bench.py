"""``bench``: deploy a bundle's dense model and time it against a small one, in turn, in ONNX Runtime."""

from __future__ import annotations

import argparse
from typing import Any

from reconvene_agent.cli import arguments as shared
from reconvene_agent.cli.board import find_board
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import answer, size
from reconvene_agent.cli.tables import print_table
from reconvene_agent.core import bundle
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.protocol import BenchRequest
from reconvene_agent.core.requests import runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=shared.path, metavar="BUNDLE")
    parser.add_argument("model", type=shared.path, metavar="DIR", help="a release, a models folder, or the output of prune")
    parser.add_argument("--seconds", type=shared.number, default=5.0, metavar="N", help="how long to measure (default: 5)")
    shared.add_common(parser)
    shared.add_board(parser)


def run(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.seconds <= 3600:
        raise UsageError("--seconds must lie between 0 and 3600")
    bundle.read(arguments.bundle)
    board = find_board(arguments, arguments.bundle)
    compute = runtime(board.profile, board.device)
    request = BenchRequest(str(arguments.bundle.resolve()), str(arguments.model.resolve()), compute, arguments.seconds)
    document = run_worker(request, board.config.worker, compute.training_threads, arguments.debug)
    return answer(document, arguments.json, _show)


def _show(document: dict[str, Any]) -> None:
    dense, pruned, ratio = document["dense"], document["pruned"], document["ratio"]
    rows = [
        ("ONNX file", size(dense["bytes"]), size(pruned["bytes"]), f"{ratio['bytes']:.2f}×"),
        ("parameters", f"{dense['params']:,}", f"{pruned['params']:,}", f"{ratio['params']:.2f}×"),
        ("MACs", f"{dense['macs']:,}", f"{pruned['macs']:,}", f"{ratio['macs']:.2f}×"),
    ]
    for name in ("p50", "p95"):
        times = dense["latency_ms"][name], pruned["latency_ms"][name]
        rows.append((f"latency {name}", f"{times[0]:.2f} ms", f"{times[1]:.2f} ms", f"{times[0] / times[1]:.2f}×"))
    print_table(("", "dense", "pruned", "ratio"), rows, left=("",))
    print(f"batch 1, threads: {document['threads']}, {document['providers'][0]}")
