"""From a trained model to a release: the deployed file checked, judged by the gate, and promoted or kept aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from onnx import ModelProto
from torch import nn

from reconvene_agent.core import gate
from reconvene_agent.core.budget import Budget
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.gate import Verdict
from reconvene_agent.core.job import Step
from reconvene_agent.core.plan import Candidate
from reconvene_agent.core.protocol import SpecializeRequest
from reconvene_agent.core.release import Latency
from reconvene_agent.core.signatures import FASTER, accuracy_collapse
from reconvene_agent.worker.channel import Channel
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.deploy import int8, parity, release, scoring
from reconvene_agent.worker.deploy.release import Facts
from reconvene_agent.worker.deploy.scoring import Score
from reconvene_agent.worker.deploy.session import Session, measure, open_session
from reconvene_agent.worker.priority import Priority

PARITY_IMAGES = 64
INT8_LOSES = 0.01
"""By so much may the accuracy of int8 be below that of float32."""


@dataclass(frozen=True)
class _Deployed:
    """A deployed file that can be run, what is known of it, and how right it is."""

    session: Session
    facts: Facts
    score: Score


class Promotion:
    """The end of one run. Every latency is measured for ``seconds``."""

    def __init__(self, request: SpecializeRequest, data: Dataset, channel: Channel, priority: Priority, seconds: float) -> None:
        self._request = request
        self._data = data
        self._channel = channel
        self._priority = priority
        self._seconds = seconds

    def deploy(self, model: nn.Module, proto: ModelProto, facts: Facts, aside: Path, document: dict[str, Any]) -> dict[str, Any]:
        """Write the file into the folder ``aside``, check it against torch, judge it, promote it; return the outcome.

        ``document`` is the run's result so far, of which the outcome is made.

        Raises:
            AgentError: EXPORT_MISMATCH when file and model disagree; VERIFY_FAILED when the release has not earned its place,
                with the outcome as its result.
        """
        models = Path(self._request.models)
        onnx = release.prepare(proto, facts, aside)
        session = self._open(onnx)
        difference = parity.check(model, session, self._data.normalized(self._data.validation.inputs[:PARITY_IMAGES]))
        deployed = self._scored(session, facts, 0.1)
        quantized: dict[str, Any] | None = None
        if self._request.release.quantize == "auto":
            deployed, quantized = self._lighter(onnx, deployed)
        verdict = self._judge(deployed, models, document)
        self._channel.progress(Step.PROMOTE, 0.0)
        made, folder = release.promote(aside, models, deployed.facts, verdict.evidence.latency, verdict.refused)
        outcome = {
            **document,
            "release": {
                "path": str(folder),
                "onnx": str(folder / "model.onnx"),
                "version": made.version,
                "bytes": made.onnx_bytes,
                "sha256": made.onnx_sha256,
                "precision": made.precision,
                "latency_ms": msgspec.to_builtins(verdict.evidence.latency),
            },
            "int8": quantized,
            "gate": verdict.document(),
            "parity_max_abs_diff": difference,
        }
        told = {**outcome["release"], "accuracy": made.accuracy, "sparsity": made.sparsity}
        if verdict.refused:
            self._channel.event("refused", {**told, "gate": outcome["gate"]})
            raise AgentError(verdict.refusal(made.version, models), ErrorCode.VERIFY_FAILED, outcome)
        self._channel.event("release", told)
        return outcome

    def _lighter(self, onnx: Path, plain: _Deployed) -> tuple[_Deployed, dict[str, Any]]:
        """Return the int8 form of a deployed file, in whose place it is then, where it is as accurate and faster; and why."""
        self._channel.progress(Step.EXPORT, 0.3, "quantising to int8")
        candidate = onnx.with_name("int8.onnx")
        facts = replace(plain.facts, precision="int8")
        try:
            inputs, _ = self._data.sample(int8.CALIBRATED_ON, self._request.training.seed)
            int8.quantize(
                onnx, candidate, inputs, release.notes(facts), lambda: self._channel.progress(Step.EXPORT, 0.3, "calibrating")
            )
            light = self._scored(self._open(candidate), facts, 0.4)
            latencies = self._measured([plain.session, light.session])
            why = _why_not(plain.score.accuracy, light.score.accuracy, *latencies)
            document = {
                "deployed": not why,
                "why_not": why,
                "bytes": {"float32": onnx.stat().st_size, "int8": candidate.stat().st_size},
                "accuracy": {"float32": plain.score.accuracy, "int8": light.score.accuracy},
                "latency_ms": {
                    name: msgspec.to_builtins(latency) for name, latency in zip(("float32", "int8"), latencies, strict=True)
                },
            }
            if not why:
                candidate.replace(onnx)
                return light, document
        except AgentError as error:
            if error.code is not ErrorCode.EXPORT_MISMATCH:
                raise
            document = {"deployed": False, "why_not": error.message}
        finally:
            candidate.unlink(missing_ok=True)
        return plain, document

    def _judge(self, deployed: _Deployed, models: Path, document: dict[str, Any]) -> Verdict:
        """Measure the deployed file, hold it against what serves now, and return whether it has earned its place."""
        request, held_out = self._request.plan, self._data.validation
        rival = scoring.rival(
            models,
            deployed.facts.spec,
            deployed.facts.labels,
            held_out,
            request.runtime,
            lambda share: self._channel.progress(Step.EXPORT, 0.5 + 0.2 * share, "judging the current release"),
        )
        chosen = msgspec.convert(document["plan"]["chosen"], Candidate)
        # Who imposes knobs that miss the budget has been told so before.
        budget = Budget() if chosen.feasible is False else request.budget
        self._channel.progress(Step.EXPORT, 0.7, "measuring the deployed file")
        (latency,) = self._measured([deployed.session])
        if gate.too_slow(latency, budget):
            # Something may have disturbed it. Nothing makes a model faster than it is.
            latency = min(latency, *self._measured([deployed.session]), key=lambda each: each.p95)
        score = deployed.score
        evidence = gate.Evidence(score.accuracy, score.recall, score.classes, len(held_out), rival, latency)
        verdict = gate.judge(evidence, self._request.release.margin, budget)
        if not verdict.collapsed:
            return verdict
        known = [msgspec.convert(each, Candidate) for each in document["plan"]["candidates"]]
        signature = accuracy_collapse(document["prune"]["layers"], request.method.min_width, chosen, known)
        return msgspec.structs.replace(verdict, signature=signature)

    def _open(self, onnx: Path) -> Session:
        return self._priority.normally(lambda: open_session(onnx, self._request.plan.runtime))

    def _measured(self, sessions: Sequence[Session]) -> list[Latency]:
        return self._priority.normally(lambda: measure(sessions, self._seconds))

    def _scored(self, session: Session, facts: Facts, share: float) -> _Deployed:
        def report(done: float) -> None:
            self._channel.progress(Step.EXPORT, share + 0.1 * done, "judging the deployed file")

        found = scoring.score(session, self._data.validation, facts.mean, facts.std, report)
        return _Deployed(session, replace(facts, accuracy=round(found.accuracy, 5)), found)


def _why_not(accuracy: float, of_int8: float, latency: Latency, latency_of_int8: Latency) -> str:
    """Return why float32 is deployed all the same; empty when int8 is."""
    if accuracy - of_int8 > INT8_LOSES:
        return f"int8 loses {100 * (accuracy - of_int8):.1f} points of accuracy, {100 * INT8_LOSES:g} are allowed"
    if latency.p50 < FASTER * latency_of_int8.p50 or latency.p95 < latency_of_int8.p95:
        return (
            f"int8 is not faster here: p50 {latency_of_int8.p50:.3g} ms, p95 {latency_of_int8.p95:.3g} ms "
            f"against {latency.p50:.3g} ms, {latency.p95:.3g} ms"
        )
    return ""
