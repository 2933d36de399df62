"""The single steps on their own: plan, prune, bench, and writing a bundle's weights."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, BundleError, ErrorCode, UsageError
from reconvene_agent.core.job import Step
from reconvene_agent.core.plan import Plan, infeasible, reservations
from reconvene_agent.core.protocol import BenchRequest, ExportWeightsRequest, PlanRequest, PruneRequest
from reconvene_agent.core.release import Latency
from reconvene_agent.worker import memory
from reconvene_agent.worker.channel import Channel
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load
from reconvene_agent.worker.deploy import deployed
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import measure, open_session
from reconvene_agent.worker.models import costs, initial, registry, weights
from reconvene_agent.worker.models.costs import Costs
from reconvene_agent.worker.models.opened import OpenBundle, open_bundle
from reconvene_agent.worker.planning.search import Planner
from reconvene_agent.worker.reconvene import stored
from reconvene_agent.worker.reconvene.criteria import NEED_DATA
from reconvene_agent.worker.reconvene.method import Design, Reconvene, narrow

Methods = Callable[[float], Reconvene]
"""Returns the method for a width multiplier, the same each time, so that nothing is scored twice."""


def methods(
    request: PlanRequest | PruneRequest, bundle: OpenBundle, step: Step, channel: Channel, data: Dataset | None = None
) -> Methods:
    """Return the method for a request; ``data`` are read where the criterion needs them and they are not there yet.

    What takes long is told to ``channel`` as part of ``step``.

    Raises:
        AgentError: the data cannot be used.
    """
    scoring = request.scoring
    if data is None and scoring.data is not None and request.method.criterion in NEED_DATA:
        labels = bundle.manifest.labels
        data = load(
            Path(scoring.data),
            bundle.spec,
            labels,
            scoring.validation,
            lambda _, note: channel.progress(step, 0.0, note),
            overlap=scoring.overlap,
        )

    @cache
    def method(multiplier: float) -> Reconvene:
        return Reconvene(
            bundle,
            msgspec.structs.replace(request.method, width_multiplier=multiplier),
            request.runtime.width_multiple,
            sample=None if data is None else partial(data.sample, seed=bundle.manifest.seed),
            memory_mb=scoring.memory_mb,
            report=lambda share: channel.progress(step, 0.0, f"scoring weights, {share:.0%}"),
        )

    return method


def find_plan(request: PlanRequest, methods: Methods, exporter: Exporter, channel: Channel) -> Plan:
    """Return the plan, that of imposed knobs or the search's. It may have no choice: that is the caller's to refuse."""
    planner = Planner(methods, exporter, request.runtime, request.batch)

    def report(fraction: float, note: str) -> None:
        channel.progress(Step.PLAN, fraction, note)

    if request.sparsity is not None:
        plan = planner.imposed(request.method.width_multiplier, request.sparsity, request.budget, report)
    else:
        plan = planner.search(request.width_multipliers, request.sparsities, request.budget, report)
    if text := reservations(plan):
        channel.event("warning", {"text": text})
    return plan


def plan(request: PlanRequest, channel: Channel) -> dict[str, Any]:
    """Find the plan on its own; ``seconds`` does not count the imports.

    Raises:
        AgentError: INFEASIBLE when nothing fits the budget; its result is the same document.
    """
    torch.set_num_threads(request.runtime.training_threads)
    started = time.perf_counter()
    bundle = open_bundle(Path(request.bundle))
    found = find_plan(request, methods(request, bundle, Step.PLAN, channel), Exporter(bundle.spec.input), channel)
    document: dict[str, Any] = {**msgspec.to_builtins(found), "seconds": round(time.perf_counter() - started, 3)}
    if found.chosen is None:
        assert found.nearest_miss is not None
        raise AgentError(infeasible(found.nearest_miss), ErrorCode.INFEASIBLE, document)
    return document


def dense_costs(bundle: OpenBundle) -> Costs:
    """Return what the dense model costs on paper."""
    return costs.count(registry.build(bundle.spec), bundle.spec, mask_sizes={})


def layer_documents(design: Design) -> list[dict[str, Any]]:
    """Return the report of every prunable layer as a document."""
    return [{**asdict(layer), "density": round(layer.density, 6)} for layer in design.layers]


def prune(request: PruneRequest, channel: Channel) -> dict[str, Any]:
    """Prune a bundle and store the small model; ``seconds`` counts the work, imports apart."""
    torch.set_num_threads(request.runtime.training_threads)
    marks = [("start", time.perf_counter())]

    def mark(stage: str, fraction: float) -> None:
        marks.append((stage, time.perf_counter()))
        channel.progress(Step.PRUNE, fraction, stage)

    bundle = open_bundle(Path(request.bundle))
    method = methods(request, bundle, Step.PRUNE, channel)(request.method.width_multiplier)
    mark("open", 0.1)
    (design,) = method.design([request.sparsity])
    mark("design", 0.6)
    pruned = method.build(design)
    mark("build", 0.9)
    stored.write(Path(request.out), pruned, bundle.digest)
    mark("write", 1.0)
    stages = {stage: round(end - start, 4) for (_, start), (stage, end) in itertools.pairwise(marks)}
    dense, small = dense_costs(bundle), design.costs()
    return {
        "out": request.out,
        "sparsity": request.sparsity,
        "layers": layer_documents(design),
        "params": {"dense": dense.params, "stored": small.params, "nonzero": small.nonzero},
        "macs": {"dense": dense.macs, "pruned": small.macs},
        "seconds": {**stages, "total": round(marks[-1][1] - marks[0][1], 4)},
        "peak_rss_mb": round(memory.peak_mb(), 1),
    }


def bench(request: BenchRequest, channel: Channel) -> dict[str, Any]:
    """Deploy the dense bundle the same way as the small model and time both in turn, at batch 1."""
    torch.set_num_threads(request.runtime.training_threads)
    channel.progress(Step.EXPORT, 0.0, "reading the small model")
    bundle = open_bundle(Path(request.bundle))
    exporter = Exporter(bundle.spec.input)
    small, small_params, small_macs = _small_model(Path(request.model), bundle, exporter)
    channel.progress(Step.EXPORT, 0.5, "exporting the dense model")
    dense = exporter.to_onnx(bundle.dense()).SerializeToString()
    channel.progress(Step.EVALUATE, 0.0, f"timing both for {request.seconds:g} s")
    sessions = [open_session(model, request.runtime) for model in (dense, small)]
    dense_latency, small_latency = measure(sessions, request.seconds)
    paper = dense_costs(bundle)
    sides = {
        "dense": _side(len(dense), paper.params, paper.macs, dense_latency),
        "pruned": _side(len(small), small_params, small_macs, small_latency),
    }
    ratio = {name: round(sides["dense"][name] / sides["pruned"][name], 3) for name in ("bytes", "params", "macs")}
    ratio["latency_p50"] = round(dense_latency.p50 / small_latency.p50, 3)
    return {**sides, "ratio": ratio, "threads": request.runtime.inference_threads, "providers": sessions[0].get_providers()}


def _small_model(folder: Path, bundle: OpenBundle, exporter: Exporter) -> tuple[bytes, int, int]:
    """Return the ONNX file, parameters and MACs of a release or of a pruned model that comes from this bundle."""
    if (folder / stored.DESIGN).is_file():
        design, module = stored.read(folder)
        _same_model(design.model, bundle, folder)
        paper = costs.count(narrow(design.model, design.widths), design.model, mask_sizes=design.mask_sizes)
        return exporter.to_onnx(module).SerializeToString(), paper.params, paper.macs
    release, onnx = deployed.find(folder)
    _same_model(release.model, bundle, folder)
    return onnx.read_bytes(), release.params, release.macs


def _same_model(spec: ModelSpec, bundle: OpenBundle, folder: Path) -> None:
    if spec != bundle.spec:
        raise UsageError(f"{folder} is {_described(spec)}; the bundle is {_described(bundle.spec)}")


def _described(spec: ModelSpec) -> str:
    return f"{spec.architecture} for {'×'.join(map(str, spec.input))} and {spec.classes} classes"


def _side(size: int, params: int, macs: int, latency: Latency) -> dict[str, Any]:
    return {"bytes": size, "params": params, "macs": macs, "latency_ms": msgspec.to_builtins(latency)}


def export_weights(request: ExportWeightsRequest) -> dict[str, Any]:
    """Write the weights that a seed stands for, so that a bundle can ship them."""
    model = registry.build(ModelSpec(request.architecture, request.input, request.classes))
    try:
        weights.write(initial.materialize(model, request.seed), Path(request.path))
    except OSError as error:
        raise BundleError(f"{request.path} cannot be written: {error.strerror}") from error
    return {"path": request.path, "bytes": Path(request.path).stat().st_size}
