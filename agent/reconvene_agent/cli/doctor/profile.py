"""The device profile: which one holds on this board, and why."""

from __future__ import annotations

from collections.abc import Iterator

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, warning
from reconvene_agent.core import profile
from reconvene_agent.core.device import Device
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.profile import Profile
from reconvene_agent.daemon.probe.device import probe_device

GOOD = ok("profile.good", "{name}, since {why}")
UNKNOWN_BOARD = warning(
    "profile.unknown-board",
    "no profile knows the board {model}: {name} holds, with careful defaults",
    "write one for it: copy {name}.toml into /etc/reconvene-agent/device_profiles and edit it; docs/configuration.md says how",
)
MISFIT = warning(
    "profile.misfit",
    "the configuration names the profile {name}, but {best} is the one that fits this board",
    "take agent.profile out of {file}, if that was not meant",
)
UNUSABLE = problem(
    "profile.unusable",
    "the profile cannot be chosen: {why}",
    "correct or remove that profile or setting; reconvene-agent profiles lists what there is",
)


def check(case: Case) -> Iterator[Finding]:
    assert case.config is not None
    named = case.config.agent.profile
    device = probe_device(case.config.state_dir, case.root)
    try:
        profiles = profile.load_all()
        chosen = case.profile = profile.choose(profiles, device, named)
        best = chosen if named == "auto" else profile.choose(profiles, device)
    except UsageError as error:
        yield UNUSABLE(why=error.message)
        return
    if named != "auto" and best.name != chosen.name:
        yield MISFIT(name=chosen.name, best=best.name, file=case.file)
    elif named != "auto":
        yield GOOD(name=chosen.name, why="the configuration names it, and it fits")
    elif device.compatible and profile.fit(chosen, device)[0] == 1:
        yield UNKNOWN_BOARD(name=chosen.name, model=device.model)
    else:
        yield GOOD(name=chosen.name, why=_why(chosen, device))


def _why(chosen: Profile, device: Device) -> str:
    how, _ = profile.fit(chosen, device)
    if how == 3:
        entry = next(each for each in device.compatible if each in chosen.match.compatible)
        return f"the device tree says '{entry}'"
    if how == 2:
        return f"the board calls itself '{device.model}'"
    return f"the processor is {device.architecture} and no profile knows more of the board"
