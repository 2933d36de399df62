"""``demo``: the whole job on this machine, live: broker, agent, controller, worker, real digits."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from reconvene_agent.cli.arguments import add_output
from reconvene_agent.cli.demo import story
from reconvene_agent.cli.demo.broker import HOST, EmbeddedBroker
from reconvene_agent.cli.demo.controller import Controller, Message
from reconvene_agent.cli.demo.stage import DEVICE_ID, AgentProcess, Stage
from reconvene_agent.cli.foreground import StoppedError, run_worker
from reconvene_agent.cli.output import answer, say
from reconvene_agent.cli.progress import Progress, progress_for
from reconvene_agent.cli.tables import print_table
from reconvene_agent.core import config, profile
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.job import Status
from reconvene_agent.core.messages import SpecializeArgs, decode_args
from reconvene_agent.core.protocol import BenchRequest
from reconvene_agent.core.requests import Board
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.probe.device import probe_device

COMMAND_ID = "demo-1"
TRAINING = {"epochs": 4, "batch": 32, "learning_rate": 0.03}
BUDGET = {"model_mb": 4.0}
CONNECT_S = 20.0
RUN_S = 600.0
BENCH_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--out", type=Path, default=Path("demo-result"), metavar="DIR", help="where the result goes")


def run(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out.absolute()
    if out.exists() and not Stage(out).config.is_file():
        raise UsageError(f"{out} is there and is not an earlier demo's: name another folder with --out")
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        document = _play(Stage(aside), arguments.debug)
        shutil.rmtree(out, ignore_errors=True)
        aside.rename(out)
    except (KeyboardInterrupt, StoppedError) as stop:
        number = stop.number if isinstance(stop, StoppedError) else signal.Signals(*stop.args or (signal.SIGINT,))
        raise StoppedError(number, "stopped: nothing is left running or lying about") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for number, handler in previous.items():
            signal.signal(number, handler)
    document = {**document, "bundle": str(Stage(out).bundle), "models": str(Stage(out).models)}
    return answer(document, arguments.json, lambda result: _show(result, Stage(out)))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing is left behind."""
    raise KeyboardInterrupt(number)


def _play(stage: Stage, debug: bool) -> dict[str, Any]:
    """Play the whole demo in a folder and return the three result documents."""
    started = time.monotonic()
    with EmbeddedBroker() as broker:
        say(f"• a broker listens on {broker.url}")
        stage.build(broker.url)
        topics = Topics("te", DEVICE_ID)
        controller = Controller(HOST, broker.port, topics)
        try:
            controller.connect(CONNECT_S)
            say("• a fleet controller is connected")
            with AgentProcess(stage) as agent:
                say(f"• the agent starts as process {agent.pid}")
                with progress_for(sys.stderr) as progress:
                    pruned = _command(controller, agent, progress)
        finally:
            controller.close()
    say("• for comparison, the dense model is trained by the same recipe and deployed the same way")
    dense, bench = _compare(stage, debug)
    return {"pruned": pruned, "dense": dense, "bench": bench, "seconds": round(time.monotonic() - started, 1)}


def _command(controller: Controller, agent: AgentProcess, progress: Progress) -> dict[str, Any]:
    """Send the command when the agent is up and return its result.

    Raises:
        AgentError: the agent is gone, or the command failed.
    """
    last: dict[str, str] = {}

    def on_message(message: Message) -> None:
        place = story.bar(message)
        if place is not None:
            progress.update(place)
        line = story.heard(message)
        if line and line != last.get(message.topic):
            progress.say(line)
            last[message.topic] = line

    controller.hear_until(
        lambda m: m.topic == "status/health" and m.document.get("status") == "up", on_message, CONNECT_S, agent.check
    )
    progress.say(f"• the agent is up and takes {agent.resident_mb():.1f} MiB")
    args = {"bundle": "digits-vgg16", "data": "digits.npz", "budget": BUDGET, "training": TRAINING}
    controller.send("specialize", COMMAND_ID, args)
    progress.say(f"→ cmd/specialize/{COMMAND_ID}   init: specialise to this board, at most {BUDGET['model_mb']:g} MiB")

    def ended(message: Message) -> bool:
        status = message.document.get("status")
        return message.topic == f"cmd/specialize/{COMMAND_ID}" and status in (Status.SUCCESSFUL.value, Status.FAILED.value)

    answer = controller.hear_until(ended, on_message, RUN_S, agent.check).document
    if answer["status"] != Status.SUCCESSFUL.value:
        raise AgentError(answer["error"]["detail"], ErrorCode(answer["error"]["code"]))
    controller.clear("specialize", COMMAND_ID)
    result: dict[str, Any] = answer["result"]
    return result


def _compare(stage: Stage, debug: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and deploy the dense model aside, and time both models in turn."""
    settings = config.Config()
    device = probe_device(stage.folder)
    board = Board(settings, profile.choose(profile.load_all(), device), device)
    args = decode_args("specialize", {"sparsity": 0.0, "training": TRAINING}, board.defaults)
    assert isinstance(args, SpecializeArgs)
    aside = stage.folder / "dense"
    request = board.specialize_request(stage.bundle, stage.data, aside / "work", aside / "models", args, "demo")
    runtime = request.plan.runtime
    dense = run_worker(request, settings.worker, runtime.training_threads, debug)
    say("• both are timed in turn in ONNX Runtime")
    timing = BenchRequest(str(stage.bundle), str(stage.models), runtime, BENCH_S)
    bench = run_worker(timing, settings.worker, runtime.training_threads, debug)
    shutil.rmtree(aside)
    return dense, bench


def _show(document: dict[str, Any], stage: Stage) -> None:
    pruned = document["pruned"]
    sparsity = pruned["plan"]["chosen"]["sparsity"]
    print()
    rows = story.table(document["dense"], pruned, document["bench"])
    print_table(("", "dense", f"pruned to {sparsity:g}", ""), rows, left=("",))
    here, data, models, bundle = (_short(path) for path in (Path(sys.argv[0]), stage.data.parent, stage.models, stage.bundle))
    print(f"\nDone in {document['seconds']:.0f} s. The model: {_short(stage.models / 'current' / 'model.onnx')}")
    print("\nNext:")
    print(f"  {here} predict {data}/3.png {data}/7.png --model {models}")
    print(f"  {here} plan {bundle} --latency-ms 0.3")
    print(f"  {here} specialize --bundle {bundle} --data YOUR/IMAGES --out YOUR/MODELS")


def _short(path: Path) -> str:
    """Write a path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
