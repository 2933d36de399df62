"""Accuracy against latency and bytes: Reconvene and its rivals, pruned at initialisation, trained alike, measured as deployed.

Every arm starts from the same seed and is trained with the same images in the same order, the same schedule (OneCycle to a peak
that suits the *dense* network, momentum 0.9, weight decay 5e-4, batch 64) and the same shifts and mirrors; batch-norm is folded
in all. Besides the method's readings there are the rivals that papers omit: uniformly narrower networks, which ours have to be
as fast as with half their bytes, and a small random search with its seconds charged; and the null control, the same layer
densities permuted. Each narrower network has half the bytes of the one before, so each of ours meets one rival of its latency
and one of its bytes.

DATA is a folder of images with ``train/<class>/`` and ``val/<class>/``, such as CIFAR-10 as files. On a CPU the defaults are
shrunk so that two models, all arms and three seeds take about half an hour on two cores with 5,000 images: 4,000 training
images, 4 epochs, VGG-16 with three eighths of its widths and ResNet-20 as it is. That is enough to try the benchmark and to
see large differences, not to rank arms that lie within the spread. ``--base-width 0.5 --epochs 12 --images 0`` takes some four
times as long and says more. With ``--device cuda``, full widths, all images and 30 epochs are the default.

Results are stored after every run: Ctrl-C stops, the same command goes on. Latency is measured at the end, when nothing
trains any more, or again with ``--measure-only``, and belongs to the machine that measures.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from accuracy import engine, jobs, latency, plot, settings
from accuracy.arms import ARMS
from accuracy.jobs import Task
from accuracy.settings import Settings
from accuracy.store import Record, Store
from accuracy.summary import summarize
from accuracy.table import table, verdicts
from reconvene_agent.core.errors import AgentError
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load

STOPPED = 130
OUT_OF_TIME = 3
CUDA_JOBS = 8


class OutOfTimeError(Exception):
    """Raised when the minutes that were allowed are over."""


@dataclass(frozen=True)
class Benchmark:
    """One call of the benchmark: its arguments, its data, and the settings of each model."""

    arguments: argparse.Namespace
    data: Dataset
    models: list[Settings]
    store: Store

    @property
    def arms(self) -> list[str]:
        return self.arguments.only or list(ARMS)

    def run(self) -> None:
        """Do the phases that the arguments ask for.

        Raises:
            OutOfTimeError: the minutes that were allowed are over.
        """
        wanted = self.arguments
        if not (wanted.measure_only or wanted.plot_only):
            self.match()
            if wanted.match_only:
                return
            self.train()
            if wanted.train_only:
                return
        if not wanted.plot_only:
            self.measure()
        self.report()

    def match(self) -> None:
        """Find the equal-latency multipliers of each model, once; a resumed benchmark uses the same ones."""
        if all(ARMS[arm].rival is None for arm in self.arms):
            return
        for each in self.models:
            if self.store.matches(each):
                continue
            print(f"{each.model}: looking for the width multipliers with which ours are as fast as their rivals …", flush=True)
            found = latency.matches(each, self.arguments.seeds[0], self.arguments.measure_seconds)
            self.store.set_matches(each, found)
            for arm, row in found.items():
                print(f"  {arm}: α {row['multiplier']:g}, which takes {row['ratio']:.2f}× as long")

    def train(self) -> None:
        """Do the runs that are missing.

        Raises:
            OutOfTimeError: the minutes that were allowed are over.
        """
        missing = self._missing()
        if not missing:
            return
        if self.arguments.device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("there is no CUDA device here: leave --device out, or run this where there is one")
        twins: dict[tuple[Settings, int, str], list[Task]] = {}
        for task in missing:
            twins.setdefault(task.twin(), []).append(task)
        left = {(tasks[0].settings.model, tasks[0].arm, tasks[0].seed): tasks for tasks in twins.values()}
        total = len(left)
        print(f"{len(missing)} runs, of which {total} differ, {self.arguments.jobs} at a time", flush=True)
        started = time.monotonic()
        with closing(jobs.done([tasks[0] for tasks in left.values()], self.data, self.arguments.jobs)) as finished:
            for number, record in enumerate(finished, 1):
                for task in left.pop(_key(record)):
                    self.store.add_run(task.renamed(record))
                remaining = _left(self._minutes([tasks[0] for tasks in left.values()]))
                print(f"[{number}/{total}] {_line(record)}; {remaining}", flush=True)
                if left and time.monotonic() - started > 60 * self.arguments.minutes:
                    raise OutOfTimeError

    def _missing(self) -> list[Task]:
        done = {_key(run) for each in self.models for run in self.store.runs(each)}
        return [
            Task(each, arm, seed, self.store.matches(each))
            for seed in self.arguments.seeds
            for each in self.models
            for arm in self.arms
            if (each.model, arm, seed) not in done and (ARMS[arm].rival is None or arm in self.store.matches(each))
        ]

    def _minutes(self, left: list[Task]) -> float:
        """Estimate what is left from the seconds of the same arms, and of all arms of the model where there are none."""
        known = {(task.settings, task.arm): self.store.seconds(task.settings, task.arm) for task in left}
        guesses = [known[task.settings, task.arm] for task in left]
        means = {each: self.store.mean_seconds(each) for each in self.models}
        overall = [mean for mean in means.values() if not math.isnan(mean)]
        total = 0.0
        for task, guess in zip(left, guesses, strict=True):
            mean = means[task.settings] if not math.isnan(means[task.settings]) else sum(overall) / len(overall)
            total += mean if math.isnan(guess) else guess
        jobs: int = self.arguments.jobs
        return total / jobs / 60

    def measure(self) -> None:
        """Measure the shapes of each model that has one without latency; with ``--measure-only``, all of all models."""
        for each in self.models:
            runs = self.store.runs(each)
            known = self.store.latencies()
            shapes = {run["shape"]: run["widths"] for run in runs}
            if not shapes or (shapes.keys() <= known.keys() and not self.arguments.measure_only):
                continue
            print(f"{each.model}: measuring {len(shapes)} networks in turn …", flush=True)
            self.store.set_latencies(latency.measured(each.family.spec, list(shapes.values()), self.arguments.measure_seconds))

    def report(self) -> None:
        """Print tables and verdicts, and draw the plot."""
        rows = {each.model: summarize(self._wanted(each), self.store.latencies()) for each in self.models}
        for each in self.models:
            print(f"\n{_heading(each)}")
            print("\n".join(table(rows[each.model])) if rows[each.model] else "no results yet")
            for line in verdicts(rows[each.model]):
                print(f"- {line}")
        captions = [_heading(each) for each in self.models if rows[each.model]]
        for file in plot.draw(rows, "\n".join(captions), self.arguments.out):
            print(f"\nwrote {file}", end="")
        print()

    def _wanted(self, each: Settings) -> list[Record]:
        runs = self.store.runs(each)
        return [run for run in runs if run["seed"] in self.arguments.seeds and run["arm"] in self.arms]


def _key(run: Record) -> tuple[str, str, int]:
    return run["settings"]["model"], run["arm"], run["seed"]


def _line(run: Record) -> str:
    outcome = "diverged" if run["diverged"] else f"{100 * run['accuracy']:.1f} %"
    return f"{run['settings']['model']} {run['arm']} seed {run['seed']}: {outcome}, {run['seconds']:.0f} s"


def _left(minutes: float) -> str:
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left" if minutes else "all done"


def _heading(each: Settings) -> str:
    return (
        f"{each.model}: base width {each.base:g}, widths in multiples of {each.multiple}, sparsity {each.sparsity:g}, "
        f"{each.images:,} training images, {each.epochs} epochs, learning rate {each.learning_rate:g}, trained on {each.device}"
    )


def _commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _arms(text: str) -> list[str]:
    names = _commas(text)
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no arm is called {unknown[0]!r}; there are: {', '.join(ARMS)}")
    return [name for name in ARMS if name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of images with train/<class>/ and val/<class>/")
    parser.add_argument("--models", type=_commas, default=["vgg16", "resnet20"])
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in _commas(text)], default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="passes over the training images")
    parser.add_argument("--images", type=int, help="training images, a fixed random choice; 0 is all")
    parser.add_argument("--base-width", type=float, help="width multiplier of the dense network of every model")
    parser.add_argument("--multiple", type=int, help="what narrowed widths are rounded up to, in every arm")
    parser.add_argument("--sparsity", type=float, default=0.9, help="of the readings, and of what is set against these")
    parser.add_argument("--learning-rate", type=float, help="peak of the schedule, in every arm")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    parser.add_argument("--jobs", type=int, help="runs at a time, one thread each; default: as many as cores")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the run during which these are over")
    parser.add_argument("--out", type=Path, default=Path("build/accuracy-latency"), help="folder of the results")
    parser.add_argument("--only", type=_arms, help="arms, by the names in the table, with commas between")
    parser.add_argument("--measure-seconds", type=float, default=30.0, help="of measuring latency, for each model")
    phase = parser.add_mutually_exclusive_group()
    phase.add_argument("--match-only", action="store_true", help="find the equal-latency multipliers, then stop")
    phase.add_argument("--train-only", action="store_true", help="neither measure nor report")
    phase.add_argument("--measure-only", action="store_true", help="measure latency again, of the runs that there are")
    phase.add_argument("--plot-only", action="store_true", help="table and plot of what there is")
    arguments = parser.parse_args()
    cpu = arguments.device == "cpu"
    if arguments.epochs is None:
        arguments.epochs = settings.CPU_EPOCHS if cpu else settings.CUDA_EPOCHS
    if arguments.images is None:
        arguments.images = settings.CPU_IMAGES if cpu else 0
    if arguments.multiple is None:
        arguments.multiple = settings.CPU_MULTIPLE if cpu else settings.CUDA_MULTIPLE
    if arguments.jobs is None:
        cores = len(os.sched_getaffinity(0))
        arguments.jobs = cores if cpu else min(CUDA_JOBS, cores)
    return arguments


def _open(arguments: argparse.Namespace) -> Benchmark:
    train = arguments.data / "train"
    if not train.is_dir() or not (arguments.data / "val").is_dir():
        raise SystemExit(f"{arguments.data} has no train/ and val/ folders of images")
    classes = sum(1 for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    spec = engine.spec_of(arguments.models[0], classes)
    data = settings.subset(load(arguments.data, spec, (), 0.0, lambda *_: None), arguments.images)
    fingerprint = data.fingerprint()[:16]
    models = [
        Settings(
            model=model,
            base=arguments.base_width or settings.default_base(model, arguments.device),
            multiple=arguments.multiple,
            sparsity=arguments.sparsity,
            epochs=arguments.epochs,
            images=len(data.train),
            classes=classes,
            data=fingerprint,
            learning_rate=arguments.learning_rate or settings.default_learning_rate(model, arguments.device),
            device=arguments.device,
        )
        for model in arguments.models
    ]
    return Benchmark(arguments, data, models, Store(arguments.out))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    arguments = _arguments()
    # A termination is answered like Ctrl-C: children are stopped, what is finished is kept.
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)
    try:
        benchmark = _open(arguments)
        with closing(benchmark.store):
            benchmark.run()
    except KeyboardInterrupt:
        print(f"\nstopped; finished runs are in {arguments.out}, and the same command goes on from there", file=sys.stderr)
        return STOPPED
    except OutOfTimeError:
        print(f"the minutes are over; finished runs are in {arguments.out}, and the same command goes on from there")
        return OUT_OF_TIME
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
