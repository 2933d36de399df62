"""The configuration file: whether it can be read, is right, is safe, and says nothing in vain."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator

import msgspec

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.core import config, overlay, updatable
from reconvene_agent.core.config import Adopted, Config
from reconvene_agent.core.consistency import broker_address
from reconvene_agent.core.errors import UsageError

GOOD = ok("config.good", "{file} has no mistakes")
NONE = ok("config.none", "there is no configuration file: the defaults hold")
FORBIDDEN = skipped("config.forbidden", "you may not read {file}", "sudo reconvene-agent doctor")
MISTAKE = problem("config.mistake", "a mistake: {mistake}", "correct {file}; docs/configuration.md describes every setting")
OPEN = problem(
    "config.open",
    "others may write {file} (mode {mode}), which names the programs that the service starts",
    "sudo chmod go-w {file}",
)
IDLE = warning(
    "config.idle", "{setting} does nothing: {why}", "take it out of {file}, or change what keeps it from having an effect"
)
UPDATED = ok("config.updated", "commands have changed these settings, over the file: {names}")
ON_TRIAL = warning(
    "config.on-trial",
    "settings that a command has changed are on trial: {names}",
    "wait and ask again: within {seconds} s they are kept, or taken back if the broker cannot be reached with them",
)
UNFIT = problem(
    "config.unfit-changes",
    "what commands have changed does not fit the file, and is left out: {why}",
    "correct {file}, or take the changes back: sudo rm {path} && sudo systemctl restart reconvene-agent",
)
PLAIN_PASSWORD = warning(
    "config.plain-password",
    "the password of {user} travels to {host} unencrypted",
    "let the broker speak TLS, and write mqtts:// in broker.url in {file}",
)


def check(case: Case) -> Iterator[Finding]:
    """Read the configuration; it is the case's from then on if it is right."""
    try:
        adopted = config.adopt(case.file)
        case.config = adopted.config
        case.document = {} if case.file is None else config.read_owners(case.file)
    except UsageError as error:
        if isinstance(error.__cause__, PermissionError):
            yield FORBIDDEN(file=case.file)
            return
        for line in error.message.splitlines():
            yield MISTAKE(mistake=line, file=case.file)
        return
    odd = [*_open(case), *_idle(case), *_plain(case)]
    yield from odd or [NONE() if case.file is None else GOOD(file=case.file)]
    yield from _changes(adopted)


def _changes(adopted: Adopted) -> Iterator[Finding]:
    """Yield what commands have made of the settings."""
    found = adopted.overlay
    if adopted.problem:
        path = adopted.config.state_dir / overlay.FILE
        yield UNFIT(why=adopted.problem.partition(": ")[2], file=adopted.source, path=path)
    elif found.trial is not None:
        yield ON_TRIAL(names=", ".join(found.trial.changed), seconds=f"{found.trial.seconds:.0f}")
    elif found.settings:
        yield UPDATED(names=", ".join(updatable.names(found.settings)))


def _open(case: Case) -> Iterator[Finding]:
    if case.file is None:
        return
    status = case.file.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o022:
        yield OPEN(file=case.file, mode=f"{stat.S_IMODE(status.st_mode):04o}")


def _plain(case: Case) -> Iterator[Finding]:
    assert case.config is not None
    section = case.config.broker
    if not section.url or not section.password_file:
        return
    host, _, tls = broker_address(section.url)
    if not tls and not _is_this_board(host):
        yield PLAIN_PASSWORD(user=section.username, host=host, file=case.settings)


def _is_this_board(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _idle(case: Case) -> Iterator[Finding]:
    """Yield the settings that are in the file and have no effect there."""
    assert case.config is not None
    settings = case.config
    said = {f"{section}.{key}" for section, content in case.document.items() for key in content}
    defaults = msgspec.to_builtins(Config())
    reasons: dict[str, str] = {}
    if not settings.broker.url:
        reasons |= {f"broker.{name}": "there is no broker.url" for name in ("protocol", "ca_file", "cert_file", "key_file")}
        reasons |= {f"broker.{name}": "there is no broker.url" for name in ("username", "password_file", "root", "keepalive_s")}
    for memory in ("memory", "training_memory"):
        if f"budget.{memory}_mb" in said:
            reasons[f"budget.{memory}_share"] = f"budget.{memory}_mb wins over it"
    if settings.method.width_multiplier != 1:
        reasons["specialize.width_multipliers"] = "method.width_multiplier imposes one"
    if not settings.drift.check_interval_s:
        reasons["drift.timeout_s"] = "the deployed model is never timed, since drift.check_interval_s is 0"
    if settings.training.patience >= settings.training.epochs:
        reasons["training.patience"] = "training is over by then, since it is not less than training.epochs"
    for name, why in reasons.items():
        section, _, key = name.partition(".")
        # What says the default in so many words is a reminder, not a mistake.
        if name in said and case.document[section][key] != defaults[section].get(key):
            yield IDLE(setting=name, why=why, file=case.file)
