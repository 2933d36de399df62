"""Criteria that need neither weights nor data: random, uniform, Erdős–Rényi-kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from reconvene_agent.worker.reconvene.criteria.apportion import apportion
from reconvene_agent.worker.reconvene.criteria.subject import Kept, Subject


def random(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Give every weight a random score and keep the globally highest (Frankle et al. 2021, arXiv 2009.08576, section 3).

    The counts of such a cut are multivariate hypergeometric; they are drawn as such, from the seed.
    """
    sizes = subject.sizes
    digest = hashlib.sha256(f"{subject.seed}:random scores".encode()).digest()
    results = []
    for sparsity in sparsities:
        drawn = np.random.default_rng(list(digest)).multivariate_hypergeometric(list(sizes.values()), subject.keep(sparsity))
        results.append(dict(zip(sizes, drawn.tolist(), strict=True)))
    return results


def uniform(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Give every layer the same density, 1 − s (Zhu and Gupta 2017, arXiv 1710.01878)."""
    sizes = subject.sizes
    return [
        apportion({name: (1.0 - sparsity) * size for name, size in sizes.items()}, sizes, subject.keep(sparsity))
        for sparsity in sparsities
    ]


def erk(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Give each layer a density in proportion to (its dimensions' sum) / (their product): Erdős–Rényi-kernel.

    Evci et al. 2020 (arXiv 1911.11134), section 3. Layers whose density would be over 1 stay dense, and the others share
    what is left.
    """
    return [_erk(subject, subject.keep(sparsity)) for sparsity in sparsities]


def _erk(subject: Subject, keep: int) -> Kept:
    sizes = subject.sizes
    raw = {name: sum(shape) for name, shape in subject.shapes.items()}  # density · product, up to a common factor
    dense: set[str] = set()
    while True:
        left = keep - sum(sizes[name] for name in dense)
        among = sum(raw[name] for name in sizes if name not in dense)
        factor = left / among if among else 0.0
        over = {name for name in sizes if name not in dense and factor * raw[name] > sizes[name]}
        if not over:
            break
        dense |= over
    shares = {name: float(size) if name in dense else factor * raw[name] for name, size in sizes.items()}
    return apportion(shares, sizes, keep)
