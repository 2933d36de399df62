"""Ed25519 keys in files: PEM as OpenSSL writes it, read and written without a library. Also, who may read a secret's file."""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import stat
from pathlib import Path

from msgspec import Struct

from reconvene_agent.core.atomic import full_disk_is_no_disk, sync_folder
from reconvene_agent.core.errors import UsageError

# The DER of RFC 8410 around the 32 bytes of a key never varies.
_PRIVATE = bytes.fromhex("302e020100300506032b657004220420")
_PUBLIC = bytes.fromhex("302a300506032b6570032100")
_KEY_BYTES = 32
_LARGEST_FILE = 16384
_PEM = re.compile(rb"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----\r?\n(?P<body>[A-Za-z0-9+/=\s]+)-----END (?P=kind)-----")


class PublicKey(Struct, frozen=True):
    """An Ed25519 public key: its 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the key's 32 bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def pem(self) -> bytes:
        return _pem(b"PUBLIC KEY", _PUBLIC + self.raw)


def read_public(path: Path) -> PublicKey:
    """Read a public key's PEM file.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    return PublicKey(_read(path, b"PUBLIC KEY", _PUBLIC, "an Ed25519 public key"))


def read_private(path: Path) -> bytes:
    """Return the 32 bytes of a private key in a PEM file.

    Raises:
        UsageError: it cannot be read, holds something else, or others may read it.
    """
    seed = _read(path, b"PRIVATE KEY", _PRIVATE, "an Ed25519 private key")
    refuse_exposed(path, "the private key")
    return seed


def write_private(path: Path, seed: bytes) -> None:
    """Write a private key that its owner alone may read, where nothing is yet.

    Raises:
        UsageError: something is there already.
        AgentError: NO_DISK when the disk is full.
        OSError: it cannot be written.
    """
    _write_new(path, _pem(b"PRIVATE KEY", _PRIVATE + seed), 0o600)


def write_public(path: Path, key: PublicKey) -> None:
    """Write a public key where nothing is yet; raises as ``write_private`` does."""
    _write_new(path, key.pem, 0o644)


def is_exposed(mode: int) -> bool:
    """Whether others than a file's owner and group may read it, or others than its owner may write it."""
    return bool(mode & 0o007 or mode & 0o020)


def refuse_exposed(path: Path, what: str) -> None:
    """Refuse a secret's file that others than its owner and its group may read, or others than its owner may write.

    A group may read it, since that is how root hands a file to a service.

    Raises:
        UsageError: it is exposed; the message says what to type.
        OSError: it cannot be looked at.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if is_exposed(mode):
        raise UsageError(f"{what} {path} is open to others (mode {mode:04o}): chmod o=,g-w {path}")


def _read(path: Path, kind: bytes, prefix: bytes, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    found = _PEM.search(content)
    if found is not None and found["kind"] == kind:
        try:
            der = binascii.a2b_base64(found["body"])
        except binascii.Error:
            der = b""
        if der.startswith(prefix) and len(der) == len(prefix) + _KEY_BYTES:
            return der[len(prefix) :]
    told = f"; it holds a {found['kind'].decode()}" if found is not None and found["kind"] != kind else ""
    raise UsageError(f"{path} does not hold {what} in PEM, as 'reconvene-agent keys generate' writes it{told}")


def _pem(kind: bytes, der: bytes) -> bytes:
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (kind, binascii.b2a_base64(der), kind)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise UsageError(f"{path} is already there, and a key is never written over: name another file") from error
    with os.fdopen(descriptor, "wb") as file, full_disk_is_no_disk(f"writing {path}"):
        try:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    sync_folder(path.absolute().parent)
