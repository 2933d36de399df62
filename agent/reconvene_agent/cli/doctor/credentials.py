"""The files that prove who is who to the broker: there, readable by the agent alone, in date, and belonging together."""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.cli.doctor.account import acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, problem, skipped, warning
from reconvene_agent.core import keys
from reconvene_agent.core.errors import UsageError
from reconvene_agent.daemon.security.certificate import Certificate, read_certificates
from reconvene_agent.daemon.security.keyring import trusted_keys

NONE = ok("credentials.none", "the configuration names no certificates and no password")
GOOD = ok("credentials.good", "in order: {files}")
HIDDEN = skipped("credentials.hidden", "you may not read {path} ({setting})", "sudo reconvene-agent doctor")
UNREADABLE = problem(
    "credentials.unreadable",
    "{user} cannot read {path} (broker.{setting}): {why}",
    "sudo chgrp {group} {path} && sudo chmod g+r {path}",
)
OPEN = problem(
    "credentials.open",
    "{path} (broker.{setting}) is open to others (mode {mode})",
    "sudo chmod o=,g-w {path}; if others use this board, replace the secret as well",
)
USELESS = problem(
    "credentials.useless",
    "{path} (broker.{setting}) cannot be used: {why}",
    "put the right file there; certificates and keys in PEM, the key without a passphrase, the password in the first line",
)
MISMATCH = problem(
    "credentials.mismatch",
    "the key {key} is not that of the certificate {certificate}",
    "put the two files that were made together into broker.cert_file and broker.key_file in {file}",
)
EXPIRED = problem(
    "credentials.expired",
    "the certificate {path} (broker.{setting}) has expired on {day}",
    "have it renewed by whoever issued it ({issuer}), and put the new one there",
)
EARLY = problem(
    "credentials.early",
    "the certificate {path} (broker.{setting}) is valid from {day} on, but the clock says {today}",
    "set the clock (timedatectl shows it); if it is right, wait, or have the certificate made anew",
)
ENDING = warning(
    "credentials.ending",
    "the certificate {path} (broker.{setting}) expires on {day}, in {days} days",
    "have it renewed by whoever issued it ({issuer}), and put the new one there",
)
OTHER_NAME = warning(
    "credentials.other-name",
    "the certificate {path} is for {name}, but the device id is {device}: brokers that go by it refuse this board its topics",
    "set agent.device_id to {name} in {file}, or have a certificate made for {device}",
)

KEYS = ok("credentials.keys", "commands must be signed with one of the keys {ids}")
BAD_KEYS = problem(
    "credentials.bad-keys",
    "the keys that sign commands cannot be used: {why}",
    "correct that, or security.trusted_keys in {file}; docs/security.md says how keys are made and put there",
)

_SECRET = ("key_file", "password_file")


def day(moment: float) -> str:
    """Write the day of a moment, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def check(case: Case) -> Iterator[Finding]:
    assert case.config is not None
    yield from _trusted(case, case.config.security.trusted_keys)
    section = case.config.broker
    names = {name: Path(value) for name in ("ca_file", "cert_file", *_SECRET) if (value := getattr(section, name))}
    if not names:
        yield NONE()
        return
    texts: dict[str, str] = {}
    good = []
    for setting, path in names.items():
        found = list(_file(case, setting, path, texts))
        yield from found
        if not found:
            good.append(f"{path}{_validity(texts[setting]) if setting.startswith('c') else ''}")
    if "cert_file" in texts and "key_file" in texts and (found := list(_pair(case, names["cert_file"], names["key_file"]))):
        yield from found
    elif good:
        yield GOOD(files=", ".join(good))


def _trusted(case: Case, folder: str) -> Iterator[Finding]:
    """Look at the keys that sign commands, where they must be signed."""
    if not folder:
        return
    if not case.service.reachable and not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
        yield HIDDEN(path=Path(folder), setting="trusted_keys")
        return
    try:
        with acting_as(case.service):
            found = trusted_keys(folder)
    except UsageError as error:
        yield BAD_KEYS(why=error.message, file=case.settings)
    else:
        yield KEYS(ids=", ".join(found))


def _file(case: Case, setting: str, path: Path, texts: dict[str, str]) -> Iterator[Finding]:
    """Look at one file; ``texts`` takes what the agent can read of it."""
    account = case.service
    facts = {"setting": setting, "path": path, "user": account.name, "group": account.group}
    if not account.reachable and not os.access(path, os.R_OK, effective_ids=True):
        yield HIDDEN(**facts)
        return
    try:
        with acting_as(account):
            text = path.read_text(encoding="utf-8")
            mode = stat.S_IMODE(path.stat().st_mode)
    except PermissionError as error:
        yield UNREADABLE(**facts, why=error.strerror)
        return
    except (OSError, UnicodeDecodeError) as error:
        yield USELESS(**facts, why=getattr(error, "strerror", None) or "it is not text")
        return
    if setting in _SECRET and keys.is_exposed(mode):
        yield OPEN(**facts, mode=f"{mode:04o}")
    if setting == "password_file":
        if not text.partition("\n")[0].strip():
            yield USELESS(**facts, why="its first line is empty")
            return
    elif setting == "key_file":
        if "PRIVATE KEY-----" not in text:
            yield USELESS(**facts, why="it holds no private key")
            return
    else:
        yield from _certificate(case, setting, path, text)
    texts[setting] = text


def _certificate(case: Case, setting: str, path: Path, text: str) -> Iterator[Finding]:
    facts = {"setting": setting, "path": path}
    try:
        found = read_certificates(str(path), text)
    except ValueError:
        yield USELESS(**facts, why="its certificate is damaged")
        return
    if not found:
        yield USELESS(**facts, why="it holds no certificate")
        return
    # Of a client's chain the first is its own; of authorities any may be the broker's, so the one that lasts longest counts.
    own = found[0] if setting == "cert_file" else max(found, key=lambda each: each.ends)
    yield from _dates(own, facts)
    assert case.config is not None
    if setting == "cert_file" and own.name != case.config.device_id:
        yield OTHER_NAME(**facts, name=own.name, device=case.config.device_id, file=case.file)


def _dates(found: Certificate, facts: dict[str, object]) -> Iterator[Finding]:
    now = time.time()
    if found.ends < now:
        yield EXPIRED(**facts, day=day(found.ends), issuer=found.issuer)
    elif found.begins > now:
        yield EARLY(**facts, day=day(found.begins), today=day(now))
    elif found.ends_soon(now):
        yield ENDING(**facts, day=day(found.ends), days=int((found.ends - now) / 86400), issuer=found.issuer)


def _validity(text: str) -> str:
    return f" (until {day(max(each.ends for each in read_certificates('', text)))})"


def _pair(case: Case, certificate: Path, key: Path) -> Iterator[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with acting_as(case.service):
            context.load_cert_chain(certificate, key, password=lambda: b"")  # else OpenSSL would ask the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield MISMATCH(certificate=certificate, key=key, file=case.file)
        else:
            yield USELESS(path=key, setting="key_file", why=(error.reason or str(error)).replace("_", " ").lower())
    except OSError as error:
        yield USELESS(path=key, setting="key_file", why=error.strerror or error)
