"""The worker's interpreter and its libraries, as a run would find them."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconvene_agent import __version__
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.cli.doctor.interpreter import Told, listen

GOOD = ok("worker.good", "{python} (Python {version}) loads {libraries}, in {seconds} s and {peak} MiB")
UNSTARTABLE = problem(
    "worker.unstartable",
    "{python} cannot be started by the user {user}: {why}",
    "put the interpreter that has torch into worker.python in {file}; without that setting the agent's own is used",
)
LATE = problem(
    "worker.late",
    "{python} had not loaded everything after {seconds} s; it was busy with {module}",
    "try it yourself: {python} -c 'import {module}'; if that is just slow here, raise worker.start_timeout_s in {file}",
)
NOT_PYTHON = problem(
    "worker.not-python",
    "{python} does not behave like Python with reconvene-agent: {why}",
    "try it yourself: {python} -m reconvene_agent.worker.inspection",
)
NO_AGENT = problem("worker.no-agent", "{python} does not have reconvene-agent", "{pip} 'reconvene-agent[worker]=={ours}'")
OTHER_AGENT = problem(
    "worker.other-agent", "{python} has reconvene-agent {theirs}, but this is {ours}", "{pip} 'reconvene-agent[worker]=={ours}'"
)
MISSING = problem("worker.missing", "{python} lacks {module}, which {needs} needs", "{pip} '{distribution}{wanted}'")
BROKEN = problem(
    "worker.broken",
    "{python} cannot load {module}: {why}",
    "{python} -c 'import {module}' shows the whole error; to install it anew: {pip} --force-reinstall '{distribution}{wanted}'",
)
CRASHED = problem(
    "worker.crashed",
    "{python} was ended by {signal} while it loaded {module}",
    "install it anew: {pip} --force-reinstall {distribution}",
)
ILLEGAL = problem(
    "worker.illegal-instruction",
    "{python} was ended by SIGILL while it loaded {module}",
    "this build of {distribution} does not suit the processor: install another version, or one built for this board",
)
FILTERED = problem(
    "worker.filtered",
    "{python} was ended by SIGSYS while it loaded {module}",
    "a filter of system calls forbids what it needs: take SystemCallFilter out of the unit's drop-ins",
)
KILLED = problem(
    "worker.killed",
    "{python} was killed while it loaded {module}",
    "most likely the memory did not suffice (sudo dmesg | grep -i oom): stop other programs, and try again",
)
WRONG_VERSION = problem(
    "worker.wrong-version", "{python} has {module} {version}, but {wanted} is needed", "{pip} '{distribution}{wanted}'"
)
NO_CUDA = warning(
    "worker.no-cuda",
    "the profile {profile} trains on CUDA, but the torch of {python} finds none: training takes the processor",
    "on JetPack, use the system's torch: set worker.python to /usr/bin/python3 in {file}; then check with: {python} -c "
    "'import torch; print(torch.cuda.is_available())'",
)
NO_PROVIDER = warning(
    "worker.no-provider",
    "the profile {profile} wants {missing} of ONNX Runtime, which {python} does not have: inference takes {others}",
    "install the build of onnxruntime for this board (onnxruntime-gpu on a Jetson), or take the provider out of the profile",
)
UNREACHABLE = skipped(
    "worker.unreachable", "only root can start the worker as {user}, as the agent does", "sudo reconvene-agent doctor"
)

_ENDS = {signal.SIGILL: ILLEGAL, signal.SIGSYS: FILTERED, signal.SIGKILL: KILLED}
_NO_MODULE = re.compile(r"No module named '?reconvene_agent")


def check(case: Case) -> Iterator[Finding]:
    """Load the worker's libraries; the case learns how much memory they take."""
    assert case.config is not None
    section = case.config.worker
    if not case.service.reachable:
        yield UNREACHABLE(user=case.service.name)
        return
    python = section.python or sys.executable
    facts = {"python": Path(python), "file": case.settings, "ours": __version__, "pip": f"{shlex.quote(python)} -m pip install"}
    try:
        told = listen(python, case.service, section.start_timeout_s)
    except OSError as error:
        yield UNSTARTABLE(**facts, user=case.service.name, why=error.strerror or error)
        return
    if not told.facts or "agent" not in told.facts[0]:
        yield _speechless(told, facts)
        return
    libraries, trouble = _libraries(told, facts)
    if (theirs := told.facts[0]["agent"]) != __version__:
        trouble.append(OTHER_AGENT(**facts, theirs=theirs))
    case.libraries_mb = next((each["peak_mb"] for each in told.facts if "peak_mb" in each), None)
    if case.libraries_mb is not None and not trouble:
        names = ", ".join(f"{name} {version}".strip() for name, version in libraries.items())
        yield GOOD(
            python=facts["python"],
            version=told.facts[0]["python"],
            libraries=names,
            seconds=f"{told.seconds:.1f}",
            peak=f"{case.libraries_mb:.0f}",
        )
    yield from trouble
    yield from _wishes(case, told, facts)


def _speechless(told: Told, facts: dict[str, Any]) -> Finding:
    """Return what is wrong with an interpreter that has not even told its version."""
    if told.code is None:
        return LATE(**facts, seconds=f"{told.seconds:.0f}", module="reconvene_agent")
    if _NO_MODULE.search(told.stderr):
        return NO_AGENT(**facts)
    said = told.rubbish or (told.stderr.splitlines() or [""])[-1][:200]
    ended = f"it ended with {told.code}" if told.code >= 0 else f"{_name(told.code)} ended it"
    return NOT_PYTHON(**facts, why=f"it says '{said}'" if said else f"{ended} without a word")


def _libraries(told: Told, facts: dict[str, Any]) -> tuple[dict[str, str], list[Finding]]:
    """Return the versions of the libraries that could be loaded, and what is wrong with the others."""
    versions: dict[str, str] = {}
    trouble: list[Finding] = []
    about: dict[str, Any] = {**facts, "module": "reconvene_agent", "distribution": "reconvene-agent", "wanted": ""}
    for fact in told.facts:
        if "importing" in fact:
            about |= {"module": fact["importing"], "distribution": fact["distribution"], "wanted": fact["wanted"]}
        elif "missing" in fact:
            name = fact["missing"]
            its_own = {"module": name, "distribution": name, "wanted": "", "needs": about["module"]}
            trouble.append(MISSING(**{**about, "needs": "the worker", **({} if name == about["module"] else its_own)}))
        elif "broken" in fact:
            trouble.append(BROKEN(**about, why=fact["broken"]))
        elif "version" in fact:
            versions[about["module"]] = fact["version"]
            if not satisfied(fact["version"], about["wanted"]):
                trouble.append(WRONG_VERSION(**about, version=fact["version"]))
    if told.code is None:
        trouble.append(LATE(**about, seconds=f"{told.seconds:.0f}"))
    elif told.code < 0:
        kind = _ENDS.get(signal.Signals(-told.code), CRASHED)
        trouble.append(kind(**about, signal=_name(told.code)))
    elif told.rubbish or told.code:
        trouble.append(NOT_PYTHON(**facts, why=f"it says '{told.rubbish}'" if told.rubbish else f"it ended with {told.code}"))
    return versions, trouble


def _wishes(case: Case, told: Told, facts: dict[str, Any]) -> Iterator[Finding]:
    """Compare what the libraries can do with what the profile wants of them."""
    if case.profile is None:
        return
    can = {name: value for each in told.facts for name, value in each.items() if name in ("cuda", "providers")}
    compute = case.profile.compute
    if compute.training_device == "cuda" and can.get("cuda") is False:
        yield NO_CUDA(**facts, profile=case.profile.name)
    missing = [each for each in compute.providers if each not in can.get("providers", compute.providers)]
    if missing:
        others = ", ".join(each for each in compute.providers if each not in missing) or "nothing"
        yield NO_PROVIDER(**facts, profile=case.profile.name, missing=", ".join(missing), others=others)


def satisfied(version: str, wanted: str) -> bool:
    """Whether a version meets a requirement of the form ``<3,>=2.6``; what is not understood is met."""
    have = _numbers(version)
    for part in filter(None, wanted.split(",")):
        if part.startswith(">=") and have < _numbers(part[2:]):
            return False
        if part.startswith("<") and part[1:2] != "=" and have >= _numbers(part[1:]):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version.strip())
    return tuple(map(int, found[0].split("."))) if found else ()


def _name(code: int) -> str:
    return signal.Signals(-code).name
