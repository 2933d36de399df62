"""One run, top to bottom: plan, prune, train, evaluate, export, promote.

``work`` holds what an interruption must not cost: the plan, the checkpoint, the outcome. Started again with the same
request, the run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from reconvene_agent.core import atomic
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.plan import Plan, infeasible
from reconvene_agent.core.protocol import SpecializeRequest
from reconvene_agent.worker import memory, tasks
from reconvene_agent.worker.channel import Channel, StopRequested
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load
from reconvene_agent.worker.deploy import parity, release
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import measure, open_session
from reconvene_agent.worker.models.opened import OpenBundle, open_bundle
from reconvene_agent.worker.priority import Priority
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.checkpoint import Checkpoint
from reconvene_agent.worker.training.loop import Epoch, Interrupted, Trainer, accuracy

AMPLE_MB = 1024.0
"""Where training may take less, the libraries of torch's exporter, some 180 MB, are too much to have beside it."""
PARITY_IMAGES = 64
FINAL_MEASURE_SECONDS = 2.0

_memory = msgspec.json.Decoder(dict[str, Any])


def specialize(request: SpecializeRequest, channel: Channel) -> dict[str, Any]:
    """Run everything and return the result document.

    Raises:
        AgentError: a failure that is understood; the current release stays as it was.
        StopRequested: the run was stopped; with ``suspend`` it can be resumed.
    """
    torch.set_num_threads(request.plan.runtime.training_threads)
    work, models = Path(request.work), Path(request.models)
    channel.progress(Step.PROBE, 0.0, "verifying the bundle")
    bundle = open_bundle(Path(request.plan.bundle))
    data = _read_data(request, bundle, channel)
    run = _Run(request, bundle, data, channel, work)
    outcome = run.earlier_outcome()
    if outcome is not None:
        return outcome
    plan = run.plan()
    run.make_room()
    pruned, prune_document = run.prune(plan)
    training = run.train(pruned)
    return run.deploy(pruned, models, {"plan": msgspec.to_builtins(plan), "prune": prune_document, "training": training})


def _read_data(request: SpecializeRequest, bundle: OpenBundle, channel: Channel) -> Dataset:
    def report(fraction: float, note: str) -> None:
        channel.progress(Step.PROBE, fraction, note)

    data = load(Path(request.data), bundle.spec, bundle.manifest.labels, request.training.validation, report)
    if data.skipped.count:
        channel.event("warning", {"text": f"{data.skipped.count} images were skipped", "examples": data.skipped.examples})
    return data


class _Run:
    """The state that the steps of one run share."""

    def __init__(self, request: SpecializeRequest, bundle: OpenBundle, data: Dataset, channel: Channel, work: Path) -> None:
        self._request = request
        self._bundle = bundle
        self._data = data
        self._channel = channel
        self._work = work
        self._methods = tasks.methods(request.plan, bundle, Step.PLAN, channel, data)
        self._fingerprint = self._identify()
        self._exporter = Exporter(bundle.spec.input, work / f"graph-{self._fingerprint[:16]}.onnx")
        self._before_model_mb = 0.0
        self._priority = Priority()

    def _identify(self) -> str:
        """Name everything the result depends on, so that nothing of another run is ever resumed."""
        plan = self._request.plan
        asked = (plan.method, plan.sparsity, plan.sparsities, plan.width_multipliers, plan.batch, self._request.training)
        return hashlib.sha256(msgspec.json.encode((self._bundle.digest, self._data.fingerprint(), *asked))).hexdigest()

    def earlier_outcome(self) -> dict[str, Any] | None:
        """Return the result of this very run if it had already finished and only its report was lost."""
        outcome: dict[str, Any] | None = self._remembered("outcome.json", dict[str, Any])
        return outcome

    def plan(self) -> Plan:
        """Return the plan, from before an interruption if there is one, so that the run goes on with the same model.

        Raises:
            AgentError: INFEASIBLE when nothing fits the budget; its result holds the plan.
        """
        remembered: Plan | None = self._remembered("plan.json", Plan)
        plan = remembered or tasks.find_plan(self._request.plan, self._methods, self._exporter, self._channel)
        if plan.chosen is None:
            assert plan.nearest_miss is not None
            raise AgentError(infeasible(plan.nearest_miss), ErrorCode.INFEASIBLE, {"plan": msgspec.to_builtins(plan)})
        if remembered is None:
            self._remember("plan.json", plan)
        self._channel.event("plan", {"sparsity": plan.chosen.sparsity, "chosen": msgspec.to_builtins(plan.chosen)})
        return plan

    def make_room(self) -> None:
        """Start afresh where memory is scarce and the plan has left much of it taken."""
        available = self._request.plan.scoring.memory_mb
        if not self._exporter.burdened:
            return
        self._exporter.keep()
        if available is not None and available < AMPLE_MB:
            self._channel.start_afresh(self._request)

    def prune(self, plan: Plan) -> tuple[PrunedModel, dict[str, Any]]:
        assert plan.chosen is not None
        self._channel.progress(Step.PRUNE, 0.0)
        self._before_model_mb = memory.settled_mb()
        started = time.perf_counter()
        method = self._methods(plan.chosen.width_multiplier)
        (design,) = method.design([plan.chosen.sparsity])
        pruned = method.build(design)
        seconds = time.perf_counter() - started
        dense, small = tasks.dense_costs(self._bundle), design.costs()
        document = {
            "sparsity": design.sparsity,
            "width_multiplier": plan.chosen.width_multiplier,
            "layers": tasks.layer_documents(design),
            "params": {"dense": dense.params, "stored": small.params, "nonzero": small.nonzero},
            "macs": {"dense": dense.macs, "pruned": small.macs},
            "seconds": {"total": round(seconds, 4)},
        }
        self._channel.event("prune", {name: document[name] for name in ("sparsity", "params", "macs", "seconds")})
        return pruned, document

    def train(self, pruned: PrunedModel) -> dict[str, Any]:
        options, channel = self._request.training, self._channel
        checkpoint = Checkpoint(self._work / "checkpoint.safetensors", self._fingerprint)
        self._priority.lower()
        memory.settled_mb()
        memory.start_peak()
        trainer = Trainer(pruned, self._data, options, self._request.plan.batch, checkpoint)

        def report(fraction: float, note: str) -> None:
            try:
                channel.progress(Step.TRAIN, fraction, note)
            except StopRequested as stop:
                raise Interrupted(stop) from stop

        def on_epoch(epoch: Epoch) -> None:
            channel.event("epoch", {**epoch.document(), "epochs": options.epochs})

        try:
            position = trainer.run(report, on_epoch)
        except Interrupted as interrupted:
            raise interrupted.reason from None
        peak = memory.peak_mb()
        right = accuracy(pruned.module, self._data, self._data.validation, lambda share: channel.progress(Step.EVALUATE, share))
        seconds = max(position.seconds, 1e-9)
        return {
            "epochs": options.epochs,
            "batch": trainer.batch,
            "images": {
                "train": len(self._data.train),
                "held_out": len(self._data.validation),
                "skipped": self._data.skipped.count,
            },
            "seconds": round(seconds, 3),
            "images_per_second": round(trainer.images / seconds, 1),
            "peak_rss_mb": round(peak, 1),
            "memory_mb": round(max(0.0, peak - self._before_model_mb), 1),
            "accuracy": round(right, 5),
        }

    def deploy(self, pruned: PrunedModel, models: Path, document: dict[str, Any]) -> dict[str, Any]:
        """Export, check against torch, measure, promote; then remember the outcome."""
        channel, bundle, plan = self._channel, self._bundle, self._request.plan
        channel.progress(Step.EXPORT, 0.0)
        facts = release.Facts(
            bundle=bundle.digest,
            spec=bundle.spec,
            labels=self._data.labels,
            sparsity=pruned.design.sparsity,
            method=msgspec.structs.replace(plan.method, width_multiplier=document["plan"]["chosen"]["width_multiplier"]),
            widths=pruned.design.widths,
            costs=pruned.design.costs(),
            accuracy=document["training"]["accuracy"],
            mean=self._data.mean,
            std=self._data.std,
        )
        aside = models / f".{self._work.name}.tmp"
        try:
            onnx = release.prepare(self._exporter.to_onnx(pruned.module), facts, aside)
            session = self._priority.normally(lambda: open_session(onnx, plan.runtime))
            images = self._data.normalized(self._data.validation.inputs[:PARITY_IMAGES])
            difference = parity.check(pruned.module, session, images)
            channel.progress(Step.EXPORT, 0.7, "measuring the deployed file")
            (latency,) = self._priority.normally(lambda: measure([session], FINAL_MEASURE_SECONDS))
            channel.progress(Step.PROMOTE, 0.0)
            made, folder = release.promote(aside, models, facts, latency)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        outcome = {
            **document,
            "release": {
                "path": str(folder),
                "onnx": str(folder / "model.onnx"),
                "version": made.version,
                "bytes": made.onnx_bytes,
                "sha256": made.onnx_sha256,
                "latency_ms": msgspec.to_builtins(latency),
            },
            "parity_max_abs_diff": difference,
        }
        self._remember("outcome.json", outcome)
        channel.event("release", {**outcome["release"], "accuracy": made.accuracy, "sparsity": made.sparsity})
        return outcome

    def _remember(self, name: str, value: object) -> None:
        with atomic.full_disk_is_no_disk(f"making {self._work}"):
            self._work.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(self._work / name, msgspec.json.encode({"fingerprint": self._fingerprint, "value": value}))

    def _remembered(self, name: str, kind: Any) -> Any:
        try:
            found = from_json((self._work / name).read_bytes(), _memory.decode)
            return msgspec.convert(found["value"], kind) if found["fingerprint"] == self._fingerprint else None
        except (OSError, msgspec.DecodeError, KeyError):
            return None
