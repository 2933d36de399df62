"""``plan``: find the width multiplier and the sparsity that fit the budget on this board."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconvene_agent.cli import arguments as shared
from reconvene_agent.cli import plotting
from reconvene_agent.cli.board import find_board
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import answer
from reconvene_agent.cli.tables import print_table
from reconvene_agent.core import bundle
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.messages import PlanArgs, decode_args


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=shared.path, metavar="BUNDLE")
    shared.add_scoring_data(parser)
    shared.add_common(parser)
    shared.add_budget(parser)
    add_candidates(parser)
    parser.add_argument("--plot", type=shared.path, metavar="FILE", help="draw the plan as a picture (.png or .svg)")
    shared.add_method(parser)
    shared.add_board(parser)


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """Add the sparsity to impose, and the candidates of both knobs."""
    parser.add_argument("--sparsity", type=shared.number, metavar="S", help="impose this sparsity; it is measured all the same")
    parser.add_argument(
        "--sparsities", type=shared.number, nargs="+", metavar="S", help="the candidates (default: the configuration's)"
    )
    parser.add_argument("--width-multipliers", type=shared.number, nargs="+", metavar="N", help="the same of the other knob")


def run(arguments: argparse.Namespace) -> int:
    if arguments.plot is not None:
        plotting.check(arguments.plot)
    bundle.read(arguments.bundle)
    board = find_board(arguments, arguments.bundle)
    given = {
        "method": shared.method(arguments),
        "budget": shared.budget(arguments),
        **shared.given(arguments, ("sparsity", "sparsities", "width_multipliers")),
    }
    args = decode_args("plan", given, board.defaults)
    assert isinstance(args, PlanArgs)
    request = board.plan_request(arguments.bundle.resolve(), args, "command line", data=shared.resolved(arguments.data))
    try:
        document = run_worker(request, board.config.worker, request.runtime.training_threads, arguments.debug)
    except AgentError as error:
        if error.code is ErrorCode.INFEASIBLE and error.result is not None:
            _draw(error.result, arguments.plot)
            if not arguments.json:
                show(error.result)
        raise
    _draw(document, arguments.plot)
    return answer(document, arguments.json, show)


def _draw(document: dict[str, Any], picture: Path | None) -> None:
    if picture is not None:
        plotting.draw(document, picture)


_COSTS = ("parameters", "file MiB", "MMACs", "memory MiB", "training MiB", "p50 ms", "p95 ms", "spread")
_HEADINGS = ("", "width", "sparsity", *_COSTS, "verdict")


def show(document: dict[str, Any]) -> None:
    """Print a plan: where each limit comes from, its candidates as a table, the chosen one marked, and what is in doubt."""
    for name, limit in document["budget"].items():
        print(f"limit {name} {limit['value']:.6g} ({limit['source']})")
    chosen = document["chosen"]
    print_table(_HEADINGS, [_row(candidate, chosen) for candidate in document["candidates"]], left=("", "verdict"))
    for candidate in document["candidates"]:
        for line in _notes(candidate):
            print(line)
    print(f"{document['seconds']:.1f} s")


def _row(candidate: dict[str, Any], chosen: dict[str, Any] | None) -> tuple[str, ...]:
    latency, measured = candidate["latency_ms"], candidate["memory_measured_mb"]
    return (
        "→" if candidate == chosen else "",
        f"×{candidate['width_multiplier']:g}",
        f"{candidate['sparsity']:g}",
        f"{candidate['params']:,}",
        f"{candidate['bytes'] / 2**20:.2f}",
        f"{candidate['macs'] / 1e6:.1f}",
        f"{candidate['memory_mb'] if measured is None else measured:.1f}",
        f"{candidate['training_memory_mb']:.0f}",
        *((f"{latency['p50']:.2f}", f"{latency['p95']:.2f}", f"{latency['spread']:.0%}") if latency else ("·", "·", "·")),
        {True: "fits", False: candidate["why"], None: "not measured"}[candidate["feasible"]],
    )


def _notes(candidate: dict[str, Any]) -> Iterator[str]:
    """Yield what the table has no room for: how the memory was measured, and why the figures are in doubt."""
    name = f"width ×{candidate['width_multiplier']:g}, sparsity {candidate['sparsity']:g}"
    if candidate["memory_measured_mb"] is not None:
        yield (
            f"verified {name}: {candidate['memory_measured_mb']:.1f} MiB in a process of its own, "
            f"{candidate['memory_mb']:.1f} computed"
        )
    if candidate["doubts"]:
        again = f", although measured {candidate['repeats'] + 1} times" if candidate["repeats"] else ""
        yield f"in doubt {name}{again}: {'; '.join(candidate['doubts'])}"
