"""Criteria that score by the gradient of the loss on local data; they need the dense model in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.worker.models.segments import FLOAT_BYTES, saved_activations
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene.criteria.cut import Cuts, Histogram
from reconvene_agent.worker.reconvene.criteria.subject import Kept, Sample, Subject

SAMPLES = 128
"""Examples that the gradients are taken over: the batch size of both papers on CIFAR-10."""

# GraSP divides the logits by this, so that at initialisation all classes count alike (section 5 of its code's defaults).
TEMPERATURE = 200.0
# Copies of the parameters and of every activation that are alive at once: values and gradients, and for a second
# derivative the graph of the first as well.
_COPIES = {"snip": 2, "grasp": 4}

Scores = dict[str, Tensor]


def snip(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Score each weight by |w · ∂L/∂w|: what its removal would do to the loss (Lee et al. 2019, arXiv 1810.02340, eq. 5).

    Raises:
        UsageError: there are no local data.
        AgentError: NO_MEMORY when the dense model and its gradients do not fit.
        ValueError: a score is not a number.
    """

    def score(weights: dict[str, Tensor], loss: Callable[[], Tensor]) -> Scores:
        gradients = torch.autograd.grad(loss(), list(weights.values()))
        with torch.no_grad():
            return {name: (weight * gradient).abs_() for (name, weight), gradient in zip(weights.items(), gradients, strict=True)}

    return _cut(subject, sparsities, "snip", 1.0, score)


def grasp(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Keep the weights whose removal would cost the most gradient flow: highest w · Hg (Wang et al. 2020, arXiv 2002.07376).

    Its equation 8 scores −w · Hg, and the highest of those are removed. g is the gradient of the loss, H its Hessian.

    Raises:
        UsageError: there are no local data.
        AgentError: NO_MEMORY when the dense model and its second derivatives do not fit.
        ValueError: a score is not a number.
    """

    def score(weights: dict[str, Tensor], loss: Callable[[], Tensor]) -> Scores:
        gradients = torch.autograd.grad(loss(), list(weights.values()), create_graph=True)
        flow = torch.stack([(gradient.detach() * gradient).sum() for gradient in gradients]).sum()
        products = torch.autograd.grad(flow, list(weights.values()))
        with torch.no_grad():
            return {name: weight * product for (name, weight), product in zip(weights.items(), products, strict=True)}

    return _cut(subject, sparsities, "grasp", TEMPERATURE, score)


def _cut(
    subject: Subject,
    sparsities: Sequence[float],
    name: str,
    temperature: float,
    score: Callable[[dict[str, Tensor], Callable[[], Tensor]], Scores],
) -> list[Kept]:
    if subject.sample is None:
        raise UsageError(f"the criterion {name} scores by the loss on local data: name some with --data, or take magnitude")
    model = subject.model()
    _refuse_if_too_large(subject, model, name)
    from torch.nn.attention import SDPBackend, sdpa_kernel  # ten milliseconds that no other criterion should pay for

    # PyTorch's fast attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        scores = _scores(subject, model, subject.sample, temperature, score)
    histograms = {layer: Histogram(values, layer) for layer, values in scores.items()}
    cuts = Cuts(histograms, [subject.keep(sparsity) for sparsity in sparsities])
    for layer, values in scores.items():
        cuts.show(layer, values)
    return cuts.kept()


def _scores(
    subject: Subject,
    model: nn.Module,
    sample: Sample,
    temperature: float,
    score: Callable[[dict[str, Tensor], Callable[[], Tensor]], Scores],
) -> Scores:
    dense = subject.weights.fill(model).train()
    weights: dict[str, Tensor] = {layer: dense.get_parameter(f"{layer}.weight") for layer in subject.shapes}
    inputs, classes = (torch.from_numpy(array) for array in sample(SAMPLES))

    def loss() -> Tensor:
        logits: Tensor = dense(inputs)
        return functional.cross_entropy(logits / temperature, classes)

    return score(weights, loss)


def _refuse_if_too_large(subject: Subject, model: nn.Module, name: str) -> None:
    if subject.memory_mb is None:
        return
    traced = trace(model.eval(), subject.input)
    parameters = FLOAT_BYTES * sum(parameter.numel() for parameter in model.parameters())
    needed = _COPIES[name] * (SAMPLES * saved_activations(traced) + parameters) / 2**20
    if needed > subject.memory_mb:
        raise AgentError(
            f"the criterion {name} needs the dense model with its gradients, about {needed:.0f} MiB, and "
            f"{subject.memory_mb:.0f} MiB are allowed: take magnitude, erk or synflow, which never hold it",
            ErrorCode.NO_MEMORY,
        )
