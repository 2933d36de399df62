"""The agent's folders: there, and open to the account it runs as; and what the configuration names in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.account import acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.disk import existing
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.core import bundle
from reconvene_agent.core.errors import AgentError

GOOD = ok("files.good", "the folders are open to the user {user}: {names}")
ABSENT = warning(
    "files.absent",
    "there is no folder {path} ({setting})",
    "sudo install -d -o {user} -g {group} -m 750 {path}",
)
HIDDEN = skipped("files.hidden", "you may not look at {path} ({setting})", "sudo reconvene-agent doctor")
UNWRITABLE = problem(
    "files.unwritable",
    "{user} cannot write into {path} ({setting}): {why}",
    "sudo chown {user}:{group} {path} && sudo chmod u+rwx {path}",
)
NO_ROOM = problem(
    "files.no-room",
    "{user} cannot write even 4 KiB into {path} ({setting}): {why}",
    "free some room there; see what is said of the disk",
)
FOREIGN = problem(
    "files.foreign",
    "{user} cannot write {path}",
    "sudo chown -R {user}:{group} {folder}",
)
UNREADABLE = problem(
    "files.unreadable",
    "{user} cannot read {path} ({setting})",
    "sudo chgrp -R {group} {path} && sudo chmod -R g+rX {path}, and the same for folders above it without the -R",
)
NOT_THERE = problem(
    "files.not-there", "{setting} names {name}, which is not in {folder}", "put it there, or correct {setting} in {file}"
)
BAD_BUNDLE = problem(
    "files.bad-bundle",
    "the bundle of specialize.bundle cannot be used: {why}",
    "ship it again; reconvene-agent bundle verify {path}",
)

_OWN = ("journal.db", "spool.db", "status.json", "models", "jobs")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def check(case: Case) -> Iterator[Finding]:
    assert case.config is not None
    config = case.config
    used: list[Path] = []
    missing: list[Path] = []
    trouble: list[Finding] = []
    writable = {"agent.state_dir": config.state_dir}
    if config.socket_path.parent != config.state_dir:
        writable["agent.runtime_dir"] = config.socket_path.parent
    readable = {"agent.bundles_dir": config.bundles_dir, "agent.data_dir": config.data_dir}
    for setting, path in {**writable, **readable}.items():
        if any(folder in path.parents for folder in missing):
            continue  # it is told of the folder above
        found = list(_folder(case, setting, path, setting in writable))
        trouble += found
        if not found:
            used.append(path)
        missing += [path for each in found if each.code == ABSENT.code]
    if config.state_dir in used:
        trouble += _own_files(case, config.state_dir)
    if config.bundles_dir in used:
        trouble += _named(case, "specialize.bundle", config.specialize.bundle, config.bundles_dir)
    if config.data_dir in used:
        trouble += _named(case, "specialize.data", config.specialize.data, config.data_dir)
    if used:
        yield GOOD(user=case.service.name, names=", ".join(map(str, used)))
    yield from trouble


def _folder(case: Case, setting: str, path: Path, write: bool) -> Iterator[Finding]:
    account = case.service
    facts = {"setting": setting, "path": path, "user": account.name, "group": account.group}
    try:
        there = existing(path) == path
    except PermissionError:
        yield HIDDEN(**facts)
        return
    if not there:
        if setting != "agent.runtime_dir":  # it comes and goes with the agent
            yield ABSENT(**facts)
    elif not account.reachable:
        yield HIDDEN(**facts)
    elif not write:
        with acting_as(account):
            readable = os.access(path, os.R_OK | os.X_OK, effective_ids=True)
        if not readable:
            yield UNREADABLE(**facts)
    else:
        with acting_as(account):
            error = _written(path)
        if error is not None:
            kind = NO_ROOM if error.errno in _NO_ROOM else UNWRITABLE
            yield kind(**facts, why=error.strerror or error)


def _written(folder: Path) -> OSError | None:
    """Write a small file that is gone again at once; return what went wrong, if anything did."""
    trial = folder / f".doctor-{os.getpid()}"
    try:
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if os.write(descriptor, b"\0" * 4096) < 4096:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            trial.unlink()
    except OSError as error:
        return error
    return None


def _own_files(case: Case, folder: Path) -> Iterator[Finding]:
    """Yield the agent's own files that it may not write, as after a run as root."""
    account = case.service
    with acting_as(account):
        foreign = [
            folder / name
            for name in _OWN
            if (folder / name).exists() and not os.access(folder / name, os.W_OK, effective_ids=True)
        ]
    for path in foreign:
        yield FOREIGN(user=account.name, group=account.group, path=path, folder=folder)


def _named(case: Case, setting: str, name: str, folder: Path) -> Iterator[Finding]:
    """Look at what the configuration names in a folder."""
    if not name:
        return
    account, path = case.service, folder / name
    with acting_as(account):
        there, readable = path.exists(), os.access(path, os.R_OK, effective_ids=True)
    if not there:
        yield NOT_THERE(setting=setting, name=name, folder=folder, file=case.settings)
    elif not readable:
        yield UNREADABLE(setting=setting, path=path, user=account.name, group=account.group)
    elif setting == "specialize.bundle":
        try:
            bundle.verify(path)
        except AgentError as error:
            yield BAD_BUNDLE(why=error.message, path=path)
