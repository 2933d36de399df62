"""``specialize``: the whole run on this board, without the agent."""

from __future__ import annotations

import argparse
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.cli import arguments as shared
from reconvene_agent.cli.board import find_board
from reconvene_agent.cli.commands.plan import add_candidates
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import answer, say, size
from reconvene_agent.core import budget as budgets
from reconvene_agent.core import bundle
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.messages import SpecializeArgs, decode_args
from reconvene_agent.core.plan import named
from reconvene_agent.core.requests import Board, memory_limits
from reconvene_agent.daemon.board.pauses import Guard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=shared.path, required=True, metavar="DIR", help="the dense model as it was shipped")
    parser.add_argument(
        "--data",
        type=shared.path,
        required=True,
        metavar="PATH",
        help="folders DIR/<class>/*.jpg or .csv, a CSV or .npz file",
    )
    parser.add_argument(
        "--out", type=shared.path, required=True, metavar="DIR", help="where releases go; DIR/current is the new one"
    )
    shared.add_common(parser)
    shared.add_budget(parser)
    add_candidates(parser)
    shared.add_method(parser)
    shared.add_training(parser)
    shared.add_release(parser)
    shared.add_board(parser)


def run(arguments: argparse.Namespace) -> int:
    bundle.read(arguments.bundle)
    out = shared.new_folder(arguments.out)
    board = find_board(arguments, arguments.out if arguments.out.is_dir() else Path.cwd())
    given: dict[str, Any] = {
        "method": shared.method(arguments),
        "budget": shared.budget(arguments),
        "training": shared.training(arguments),
        "release": shared.release(arguments),
        **shared.given(arguments, ("sparsity", "sparsities", "width_multipliers")),
    }
    args = decode_args("specialize", given, board.defaults)
    assert isinstance(args, SpecializeArgs)
    identity = msgspec.json.encode((str(arguments.bundle.resolve()), str(arguments.data.resolve()), args))
    work = out / f".work-{hashlib.sha256(identity).hexdigest()[:12]}"
    paths = (arguments.bundle.resolve(), arguments.data.resolve(), work, out)

    def run_within(tighter: Board) -> dict[str, Any]:
        request = tighter.specialize_request(*paths, args, "command line")
        try:
            return run_worker(
                request, board.config.worker, request.plan.runtime.training_threads, arguments.debug, Guard(board.profile.thermal)
            )
        except AgentError as error:
            if error.code is not ErrorCode.OOM_KILLED or tighter is not board:
                raise
        say("the kernel killed the worker for want of memory: planning again within less")
        shutil.rmtree(work, ignore_errors=True)
        return run_within(msgspec.structs.replace(board, ceilings_mb=budgets.tighter(memory_limits(request))))

    try:
        document = run_within(board)
    except AgentError as error:
        # What was stopped goes on where it was; what has failed for good would fail again.
        if not error.code.retryable and error.code is not ErrorCode.INTERNAL:
            _clean(work, out)
        raise
    _clean(work, out)
    return answer(document, arguments.json, _show)


def _clean(work: Path, out: Path) -> None:
    """Remove what a run kept for going on, and the folder of releases if there is none."""
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):
        out.rmdir()


def _show(document: dict[str, Any]) -> None:
    params, training, release = document["prune"]["params"], document["training"], document["release"]
    latency = release["latency_ms"]
    chosen = document["plan"]["chosen"]
    print(f"plan        {named(chosen['width_multiplier'], chosen['sparsity'])}")
    print(f"parameters  {params['dense']:,} → {params['stored']:,} ({params['dense'] / params['stored']:.1f}× fewer)")
    speedup = document["prune"]["speedup"]
    if speedup["ratio"] is not None:
        print(f"speed-up    {speedup['ratio']:.2f}× of the dense model")
    print(f"training    {training['epochs']} epochs in {training['seconds']:.0f} s, {training['images_per_second']:.0f} images/s")
    print(f"accuracy    {document['gate']['accuracy']:.1%} of {training['images']['held_out']} held-out images")
    current = document["gate"]["current"]
    if current is not None:
        held_against = current["why_not"] or f"{current['accuracy']:.1%} on the same images"
        print(f"before      {current['version']}: {held_against}")
    print(f"latency     p50 {latency['p50']:.2f} ms, p95 {latency['p95']:.2f} ms")
    print(f"model       {release['onnx']} ({size(release['bytes'])}, {release['precision']})")
    if document["int8"] is not None and document["int8"]["why_not"]:
        print(f"int8        not deployed: {document['int8']['why_not']}")
