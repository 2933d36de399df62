"""From what a user or controller asked for to what a worker is told: defaults filled in, budget resolved for this board."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core import budget as budgets
from reconvene_agent.core.budget import Budget, BudgetLimits
from reconvene_agent.core.config import Config
from reconvene_agent.core.device import Device
from reconvene_agent.core.messages import PlanArgs, SpecializeArgs
from reconvene_agent.core.profile import Profile
from reconvene_agent.core.protocol import PlanRequest, Request, Runtime, Scoring, SpecializeRequest


def runtime(profile: Profile, device: Device) -> Runtime:
    """Return how to compute on this board; a profile's 0 threads means one for each core."""
    compute = profile.compute
    return Runtime(
        inference_threads=min(compute.inference_threads or device.cores, device.cores),
        training_threads=min(compute.training_threads or device.cores, device.cores),
        providers=compute.providers,
        batch_cap=profile.batch_cap,
        width_multiple=compute.width_multiple,
        training_device=compute.training_device,
    )


def resolve_budget(profile: Profile, config: Config, asked: BudgetLimits, asked_by: str, device: Device) -> Budget:
    """Return the limits that hold: the profile's, over them the configuration's, over them those asked for now."""
    sources: Sequence[tuple[str, BudgetLimits]] = (
        (f"profile {profile.name}", profile.budget),
        ("configuration", config.budget),
        (asked_by, asked),
    )
    return budgets.resolve(sources, device.memory.available_mb)


class Board(msgspec.Struct, frozen=True):
    """The board at hand: what it is, what is known of its kind, and how its owner configured it.

    ``ceilings_mb`` are what limits on memory must not exceed, by name.
    """

    config: Config
    profile: Profile
    device: Device
    ceilings_mb: dict[str, float] = {}

    @property
    def defaults(self) -> dict[str, Any]:
        """What a command's arguments fall back to, as plain values."""
        specialize = self.config.specialize
        named = {name: value for name, value in (("bundle", specialize.bundle), ("data", specialize.data)) if value}
        settings = {
            "sparsities": specialize.sparsities,
            "width_multipliers": specialize.width_multipliers,
            "method": self.config.method,
            "training": self.config.training,
            "release": self.config.release,
        }
        return {**named, **msgspec.to_builtins(settings)}

    def scoring(self, data: Path | None, budget: Budget) -> Scoring:
        """Return what a criterion may use: as much memory as training may, and never more than is available."""
        limit = budget.training_memory_mb
        available = self.device.memory.available_mb
        return Scoring(
            data=None if data is None else str(data),
            validation=self.config.training.validation,
            overlap=self.config.training.overlap,
            memory_mb=min(limit.value, available) if limit else available,
        )

    def plan_request(
        self, bundle: Path, args: PlanArgs, asked_by: str, batch: int | None = None, data: Path | None = None
    ) -> PlanRequest:
        """Return the request for a plan; ``asked_by`` names the source of the arguments, ``batch`` is that of training.

        ``data`` serve the criteria that score by the loss on them.
        """
        budget = budgets.under(resolve_budget(self.profile, self.config, args.budget, asked_by, self.device), self.ceilings_mb)
        return PlanRequest(
            bundle=str(bundle),
            budget=budget,
            runtime=runtime(self.profile, self.device),
            method=args.method,
            sparsities=args.sparsities,
            width_multipliers=args.width_multipliers if args.method.width_multiplier == 1.0 else (args.method.width_multiplier,),
            batch=batch or self.config.training.batch,
            sparsity=None if args.sparsity is msgspec.UNSET else args.sparsity,
            scoring=self.scoring(data, budget),
        )

    def specialize_request(
        self, bundle: Path, data: Path, work: Path, models: Path, args: SpecializeArgs, asked_by: str
    ) -> SpecializeRequest:
        """Return the request for a whole run: the plan, then training on ``data``, a release below ``models``."""
        plan = self.plan_request(bundle, args, asked_by, args.training.batch, data)
        return SpecializeRequest(
            plan=plan,
            training=args.training,
            data=str(data),
            work=str(work),
            models=str(models),
            release=args.release,
            cache_mb=self.config.specialize.cache_mb,
        )


def memory_limits(request: Request) -> dict[str, float]:
    """Return the limits of memory in a request for a plan or a whole run, by name, in MiB."""
    plan = request.plan if isinstance(request, SpecializeRequest) else request
    assert isinstance(plan, PlanRequest)
    limits = {name: limit.value for name, limit in plan.budget.limits() if name in budgets.MEMORY}
    if plan.scoring.memory_mb is not None:  # what is available now limits training too
        limits["training_memory_mb"] = plan.scoring.memory_mb
    return limits
