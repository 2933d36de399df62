"""``predict``: classify images with a deployed model."""

from __future__ import annotations

import argparse
from pathlib import Path

from reconvene_agent.cli import arguments as shared
from reconvene_agent.cli.board import find_board
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import print_json
from reconvene_agent.core import config, release
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.protocol import PredictRequest
from reconvene_agent.core.requests import runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a release or a models folder (default: the agent's)")
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
    images = tuple(str(image.resolve()) for image in arguments.images)
    document = run_worker(PredictRequest(images, str(folder), compute, arguments.top), board.config.worker, 1, arguments.debug)
    if arguments.json:
        print_json(document)
        return 0
    for given, entry in zip(arguments.images, document["predictions"], strict=True):
        answer = ", ".join(f"{each['label']} {each['probability']:.1%}" for each in entry.get("classes", ()))
        print(f"{given}: {answer or 'cannot be read: ' + entry['error']}")
    return 0
