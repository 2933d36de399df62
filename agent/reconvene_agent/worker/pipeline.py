"""One run, top to bottom: plan, prune, train, evaluate, export, promote.

Its work folder holds what an interruption must not cost: the plan, how training was settled, the checkpoint, the outcome.
Started again with the same request, the run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.plan import Candidate, Plan, infeasible
from reconvene_agent.core.protocol import SpecializeRequest
from reconvene_agent.worker import memory, tasks
from reconvene_agent.worker.channel import Channel, StopRequested
from reconvene_agent.worker.data.cache import Cache
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load
from reconvene_agent.worker.deploy import release
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.models.opened import OpenBundle, open_bundle
from reconvene_agent.worker.planning.speedup import Dense, Speedup
from reconvene_agent.worker.priority import Priority
from reconvene_agent.worker.promotion import Promotion
from reconvene_agent.worker.reconvene.method import Design, PrunedModel
from reconvene_agent.worker.training.checkpoint import Checkpoint
from reconvene_agent.worker.training.judging import accuracy
from reconvene_agent.worker.training.learner import Learner
from reconvene_agent.worker.training.loop import Epoch, Interrupted, Trainer
from reconvene_agent.worker.training.rehearsal import Limits, Rehearsal, Rehearsed
from reconvene_agent.worker.training.settings import Device
from reconvene_agent.worker.work import Work

AMPLE_MB = 1024.0
"""Where training may take less, the libraries of torch's exporter, some 180 MB, are too much to have beside it."""
COMPARE_SECONDS = 1.0
FINAL_MEASURE_SECONDS = 2.0


def specialize(request: SpecializeRequest, channel: Channel) -> dict[str, Any]:
    """Run everything and return the result document.

    Raises:
        AgentError: a failure that is understood; the current release stays as it was.
        StopRequested: the run was stopped; with ``suspend`` it can be resumed.
    """
    libraries_mb = memory.resident_mb()
    torch.set_num_threads(request.plan.runtime.training_threads)
    channel.progress(Step.PROBE, 0.0, "verifying the bundle")
    bundle = open_bundle(Path(request.plan.bundle))
    cache = Cache(Path(request.work) / "data", request.cache_mb)
    try:
        data = _read_data(request, bundle, channel, cache)
        with Priority() as priority:
            return _carry_out(_Run(request, bundle, data, channel, priority, libraries_mb), Path(request.models))
    except AgentError as error:
        if not error.code.retryable:
            cache.clear()
        raise


def _carry_out(run: _Run, models: Path) -> dict[str, Any]:
    outcome = run.earlier_outcome()
    if outcome is not None:
        return outcome
    plan = run.plan()
    speedup = run.compare(plan)
    run.make_room()
    design, prune_document = run.prune(plan)
    model, training = run.train(design)
    document = {
        "plan": msgspec.to_builtins(plan),
        "prune": {**prune_document, "speedup": speedup.document()},
        "training": training,
    }
    return run.deploy(design, model, models, document)


def _read_data(request: SpecializeRequest, bundle: OpenBundle, channel: Channel, cache: Cache) -> Dataset:
    def report(fraction: float, note: str) -> None:
        channel.progress(Step.PROBE, fraction, note)

    options, labels = request.training, bundle.manifest.labels
    data = load(Path(request.data), bundle.spec, labels, options.validation, report, cache, options.overlap)
    skipped = data.skipped
    if skipped.count and data.anew:
        told = {"text": skipped.sentence(), "skipped": skipped.counts, "examples": skipped.named()}
        channel.event("warning", told)
    for remark in data.remarks:
        channel.event("warning", {"text": remark})
    return data


class _Run:
    """The state that the steps of one run share. ``libraries_mb`` is what the process took with nothing but its libraries."""

    def __init__(
        self,
        request: SpecializeRequest,
        bundle: OpenBundle,
        data: Dataset,
        channel: Channel,
        priority: Priority,
        libraries_mb: float,
    ) -> None:
        self._request = request
        self._bundle = bundle
        self._data = data
        self._channel = channel
        self._libraries_mb = libraries_mb
        self._work = Work(Path(request.work), self._identify())
        self._exporter = Exporter(bundle.spec.input, self._work.folder / f"graph-{self._work.fingerprint[:16]}.onnx")
        self._methods = tasks.methods(request.plan, bundle, Step.PLAN, channel, data)
        self._priority = priority

    def _identify(self) -> str:
        """Name everything the result depends on, so that nothing of another run is ever resumed."""
        plan = self._request.plan
        knobs = (plan.method, plan.sparsity, plan.sparsities, plan.width_multipliers)
        asked = (*knobs, plan.batch, plan.budget.training_minutes, self._request.training)
        return hashlib.sha256(msgspec.json.encode((self._bundle.digest, self._data.fingerprint(), *asked))).hexdigest()

    def earlier_outcome(self) -> dict[str, Any] | None:
        """Return the result of this very run if it had already finished and only its report was lost."""
        outcome: dict[str, Any] | None = self._work.recall("outcome", dict[str, Any])
        return outcome

    def plan(self) -> Plan:
        """Return the plan, from before an interruption if there is one, so that the run goes on with the same model.

        Raises:
            AgentError: INFEASIBLE when nothing fits the budget; its result holds the plan.
        """
        remembered: Plan | None = self._work.recall("plan", Plan)
        plan = remembered or tasks.find_plan(self._request.plan, self._methods, self._exporter, self._channel)
        if plan.chosen is None:
            assert plan.nearest_miss is not None
            raise AgentError(infeasible(plan.nearest_miss), ErrorCode.INFEASIBLE, {"plan": msgspec.to_builtins(plan)})
        if remembered is None:
            self._work.remember("plan", plan)
        self._channel.event("plan", {"sparsity": plan.chosen.sparsity, "chosen": msgspec.to_builtins(plan.chosen)})
        return plan

    def compare(self, plan: Plan) -> Speedup:
        """Return whether pruning makes the model faster here, and warn before a night goes into it where it does not."""
        assert plan.chosen is not None
        remembered: Speedup | None = self._work.recall("speedup", Speedup)
        if remembered is not None:
            return remembered
        self._channel.progress(Step.PLAN, 1.0, "timing the dense model")
        found = self._timed_against_dense(plan.chosen)
        self._work.remember("speedup", found)
        if found.signature is not None:
            self._channel.event("warning", msgspec.to_builtins(found.signature))
        return found

    def _timed_against_dense(self, chosen: Candidate) -> Speedup:
        if chosen.sparsity == 0.0 and chosen.width_multiplier == 1.0:
            return Speedup(why_not="nothing is pruned")
        method, request = self._methods(chosen.width_multiplier), self._request.plan
        (design,) = method.design([chosen.sparsity])
        timed = Dense(self._bundle, tasks.dense_costs(self._bundle).file_bytes, self._exporter, request.runtime)
        return timed.find(method.build(design), request.scoring.memory_mb, COMPARE_SECONDS)

    def make_room(self) -> None:
        """Start afresh where memory is scarce and the plan has left much of it taken."""
        available = self._request.plan.scoring.memory_mb
        if not self._exporter.burdened:
            return
        self._exporter.keep()
        if available is not None and available < AMPLE_MB:
            self._channel.start_afresh(self._request)
        # Where it does not matter, the exporter counts among the libraries.
        self._libraries_mb = memory.settled_mb()

    def prune(self, plan: Plan) -> tuple[Design, dict[str, Any]]:
        assert plan.chosen is not None
        self._channel.progress(Step.PRUNE, 0.0)
        self._multiplier = plan.chosen.width_multiplier
        started = time.perf_counter()
        (design,) = self._methods(self._multiplier).design([plan.chosen.sparsity])
        self._build(design)
        seconds = time.perf_counter() - started
        dense, small = tasks.dense_costs(self._bundle), design.costs()
        document = {
            "sparsity": design.sparsity,
            "width_multiplier": self._multiplier,
            "layers": tasks.layer_documents(design),
            "params": {"dense": dense.params, "stored": small.params, "nonzero": small.nonzero},
            "macs": {"dense": dense.macs, "pruned": small.macs},
            "seconds": {"total": round(seconds, 4)},
        }
        self._channel.event("prune", {name: document[name] for name in ("sparsity", "params", "macs", "seconds")})
        return design, document

    def _build(self, design: Design) -> PrunedModel:
        """Return the small model before training, always the same."""
        return self._methods(self._multiplier).build(design)

    def train(self, design: Design) -> tuple[nn.Module, dict[str, Any]]:
        """Return the trained model, in evaluation mode, and what to tell of its training."""
        options, channel, data = self._request.training, self._channel, self._data
        self._priority.lower()
        rehearsed = self._rehearse(design)
        memory.settled_mb()
        memory.start_peak()
        learner = Learner(self._build(design), data, options, rehearsed.settings, design.cuts())
        checkpoint = Checkpoint(self._work.folder / "checkpoint.safetensors", self._work.fingerprint)
        trainer = Trainer(learner, data, options, rehearsed.settings.epochs, checkpoint, lambda: self._build(design))

        def on_epoch(epoch: Epoch) -> None:
            channel.event("epoch", {**epoch.document(), "epochs": rehearsed.settings.epochs})

        try:
            model, position = trainer.run(self._while_training, on_epoch, lambda text: channel.event("warning", {"text": text}))
        except Interrupted as interrupted:
            raise interrupted.reason from None
        peak = memory.peak_mb()
        # As it is deployed: in float32, on the CPU.
        right = accuracy(
            lambda some: model(torch.from_numpy(data.normalized(some.inputs))),
            data.validation,
            learner.judged_at_once,
            lambda share: channel.progress(Step.EVALUATE, share),
        )
        seconds = max(position.seconds, 1e-9)
        return model, {
            "epochs": position.epochs,
            "best_epoch": position.best_epoch,
            "batch": trainer.batch,
            "images": {"train": len(data.train), "held_out": len(data.validation), "skipped": data.skipped.counts},
            "seconds": round(seconds, 3),
            "images_per_second": round(trainer.inputs(position) / seconds, 1),
            "peak_rss_mb": round(peak, 1),
            "memory_mb": round(max(0.0, peak - self._libraries_mb, rehearsed.highest_mb), 1),
            "accuracy": round(right, 5),
            "settings": rehearsed.document(),
        }

    def _while_training(self, fraction: float, note: str) -> None:
        try:
            self._channel.progress(Step.TRAIN, fraction, note)
        except StopRequested as stop:
            raise Interrupted(stop) from stop

    def _rehearse(self, design: Design) -> Rehearsed:
        """Return how this run trains, from before an interruption if it was settled then.

        Raises:
            AgentError: NO_MEMORY or INFEASIBLE, where the limits of training cannot be kept.
        """
        remembered: Rehearsed | None = self._work.recall("settings", Rehearsed)
        if remembered is not None:
            return remembered
        budget = self._request.plan.budget
        rehearsal = Rehearsal(
            lambda: self._build(design),
            design.costs().training,
            design.cuts(),
            self._data,
            self._request.training,
            Limits(
                self._libraries_mb,
                self._request.plan.runtime.batch_cap,
                None if budget.training_memory_mb is None else budget.training_memory_mb.value,
                None if budget.training_minutes is None else budget.training_minutes.value,
            ),
            lambda: self._channel.progress(Step.TRAIN, 0.0, "rehearsing"),
        )
        rehearsed = rehearsal.settle(self._device())
        self._work.remember("settings", rehearsed)
        self._channel.event("settings", rehearsed.document())
        return rehearsed

    def _device(self) -> Device:
        """Return where to train: a GPU is taken where the profile says so and this torch has one."""
        wanted = self._request.plan.runtime.training_device
        if wanted == "cuda" and not torch.cuda.is_available():
            self._channel.event("warning", {"text": "the worker's torch has no CUDA: training runs on the CPU"})
            return "cpu"
        return wanted

    def deploy(self, design: Design, model: nn.Module, models: Path, document: dict[str, Any]) -> dict[str, Any]:
        """Export, check against torch, measure, judge, promote; then remember the outcome.

        Raises:
            AgentError: VERIFY_FAILED when the release has not earned its place; its result is the same document.
        """
        channel, bundle, plan = self._channel, self._bundle, self._request.plan
        channel.progress(Step.EXPORT, 0.0)
        facts = release.Facts(
            bundle=bundle.digest,
            spec=bundle.spec,
            labels=self._data.labels,
            sparsity=design.sparsity,
            method=msgspec.structs.replace(plan.method, width_multiplier=document["plan"]["chosen"]["width_multiplier"]),
            widths=design.widths,
            costs=design.costs(),
            accuracy=document["training"]["accuracy"],
            mean=self._data.mean,
            std=self._data.std,
            data=self._data.census,
            budget=plan.budget,
        )
        # One that lies there from an attempt that was killed is swept by the next release.
        aside = models / f".{self._work.folder.name}.{os.getpid()}.tmp"
        promotion = Promotion(self._request, self._data, channel, self._priority, FINAL_MEASURE_SECONDS)
        try:
            outcome = promotion.deploy(model, self._exporter.to_onnx(model), facts, aside, document)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._work.remember("outcome", outcome)
        return outcome
