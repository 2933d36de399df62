"""``prune``: prune a bundle at initialisation and store the small model, untrained."""

from __future__ import annotations

import argparse
from typing import Any

from reconvene_agent.cli import arguments as shared
from reconvene_agent.cli.board import find_board
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import answer
from reconvene_agent.cli.tables import print_table
from reconvene_agent.core import bundle
from reconvene_agent.core.messages import PlanArgs, decode_args
from reconvene_agent.core.protocol import PruneRequest
from reconvene_agent.core.requests import resolve_budget, runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=shared.path, metavar="BUNDLE")
    parser.add_argument(
        "--sparsity", type=shared.number, required=True, metavar="S", help="share of weights that the criterion drops"
    )
    parser.add_argument("--out", type=shared.path, required=True, metavar="DIR", help="where the pruned model goes")
    shared.add_scoring_data(parser)
    shared.add_common(parser)
    shared.add_method(parser)
    shared.add_board(parser)


def run(arguments: argparse.Namespace) -> int:
    bundle.read(arguments.bundle)
    out = shared.new_folder(arguments.out)
    board = find_board(arguments, arguments.bundle)
    args = decode_args("plan", {"method": shared.method(arguments), "sparsity": arguments.sparsity}, board.defaults)
    assert isinstance(args, PlanArgs)
    compute = runtime(board.profile, board.device)
    budget = resolve_budget(board.profile, board.config, args.budget, "command line", board.device)
    scoring = board.scoring(shared.resolved(arguments.data), budget)
    request = PruneRequest(str(arguments.bundle.resolve()), arguments.sparsity, args.method, compute, str(out), scoring)
    document = run_worker(request, board.config.worker, compute.training_threads, arguments.debug)
    return answer(document, arguments.json, _show)


def _show(document: dict[str, Any]) -> None:
    headings = ("layer", "weights", "kept", "density", "verdict", "width")
    print_table(headings, [_row(layer) for layer in document["layers"]], left=("layer", "verdict"))
    params, macs = document["params"], document["macs"]
    print(f"parameters {params['dense']:,} → {params['stored']:,} ({params['dense'] / params['stored']:.1f}× fewer stored)")
    print(f"non-zero   {params['nonzero']:,}")
    print(f"MACs       {macs['dense']:,} → {macs['pruned']:,} ({macs['dense'] / macs['pruned']:.2f}× fewer)")
    print(f"{document['seconds']['total']:.2f} s, in {document['out']}")


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    before, after = layer["width_before"], layer["width_after"]
    width = f"{before}" if before == after else f"{before} → {after}"
    return layer["name"], f"{layer['weights']:,}", f"{layer['kept']:,}", f"{layer['density']:.3f}", layer["verdict"], width
