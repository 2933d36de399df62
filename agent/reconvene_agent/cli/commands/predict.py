"""``predict``: classify images with a deployed model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconvene_agent.cli import arguments as shared
from reconvene_agent.cli.board import find_board
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import answer
from reconvene_agent.core import config, release
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.protocol import PredictRequest
from reconvene_agent.core.requests import runtime

ANSWERS_AT_ONCE = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=shared.path, nargs="+", metavar="IMAGE")
    parser.add_argument("--model", type=shared.path, metavar="DIR", help="a release or a models folder (default: the agent's)")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes to name for each image (default: 3)")
    shared.add_common(parser)
    shared.add_board(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.top < 1:
        raise UsageError("--top must be at least 1")
    models = arguments.model or config.load(arguments.config).models_dir
    folder = release.folder_of(models)
    board = find_board(arguments, folder)
    compute = runtime(board.profile, board.device)
    document: dict[str, Any] = {}
    predictions: list[dict[str, Any]] = []
    # Some at a time, since what a worker is told and what it answers each fit into one message.
    at_once = max(1, ANSWERS_AT_ONCE // arguments.top)
    for start in range(0, len(arguments.images), at_once):
        images = tuple(str(image.resolve()) for image in arguments.images[start : start + at_once])
        request = PredictRequest(images, str(folder), compute, arguments.top)
        document = run_worker(request, board.config.worker, 1, arguments.debug)
        predictions += document["predictions"]
    document = {**document, "predictions": predictions}
    if all("error" in entry for entry in predictions):
        first = predictions[0]
        raise AgentError(f"no image could be read: {first['image']}: {first['error']}", ErrorCode.BAD_DATA, document)
    return answer(document, arguments.json, lambda found: _show(found, arguments.images))


def _show(document: dict[str, Any], images: Sequence[Path]) -> None:
    for given, entry in zip(images, document["predictions"], strict=True):
        text = ", ".join(f"{each['label']} {each['probability']:.1%}" for each in entry.get("classes", ()))
        print(f"{given}: {text or 'cannot be read: ' + entry['error']}")
