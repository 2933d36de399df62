"""The examination: every check in order of dependence, to the end, whatever becomes of one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator

from reconvene_agent.cli.doctor import (
    broker,
    clock,
    configuration,
    credentials,
    disk,
    folders,
    kernel,
    memory,
    power,
    profile,
    service,
    worker,
)
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, problem, skipped

FAILED = problem(
    "{check}.failed", "this check failed: {error}", "please report it, with what 'reconvene-agent doctor --debug' shows"
)
UNCONFIGURED = skipped(
    "{check}.unconfigured", "not looked at: it depends on the configuration", "put the configuration right and ask again"
)

Check = Callable[[Case], Iterable[Finding]]


class Step:
    """A check by its name; ``needs_config`` if there is nothing to look at without a configuration that is right."""

    def __init__(self, name: str, check: Check, needs_config: bool = True) -> None:
        self.name = name
        self.check = check
        self.needs_config = needs_config


STEPS = (
    Step("config", configuration.check, needs_config=False),
    Step("service", service.check),
    Step("profile", profile.check),
    Step("files", folders.check),
    Step("credentials", credentials.check),
    Step("disk", disk.check),
    Step("worker", worker.check),
    Step("memory", memory.check, needs_config=False),
    Step("power", power.check, needs_config=False),
    Step("kernel", kernel.check, needs_config=False),
    Step("broker", broker.check),
    # Last, since it also tells whether the clock has jumped in the meantime.
    Step("clock", clock.check, needs_config=False),
)


def examine(case: Case, begun: Callable[[str], None], debug: bool = False, steps: Iterable[Step] = STEPS) -> Iterator[Finding]:
    """Yield what is found; ``begun`` is told the name of each check before it is made."""
    for step in steps:
        begun(step.name)
        if step.needs_config and case.config is None:
            yield _named(UNCONFIGURED(check=step.name), step.name)
            continue
        try:
            yield from step.check(case)
        except Exception as error:  # noqa: BLE001 - whatever became of one check, the others are made
            if debug:
                traceback.print_exc()
            yield _named(FAILED(check=step.name, error=f"{type(error).__name__}: {error}"), step.name)


def _named(finding: Finding, check: str) -> Finding:
    return Finding(check, finding.code.format(check=check), finding.verdict, finding.found, finding.advice)
