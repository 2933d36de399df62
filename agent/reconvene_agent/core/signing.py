"""Signed commands: what of a command is signed, how that is done, and how it is checked (docs/security.md).

The library that computes signatures is loaded when the first one is made or checked.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from reconvene_agent.core import clock
from reconvene_agent.core.canonical import canonical
from reconvene_agent.core.decoding import located
from reconvene_agent.core.errors import ErrorCode, UsageError
from reconvene_agent.core.keys import PublicKey, read_private

CONTEXT = "reconvene-agent command 1"
"""Stands in what is signed, so that a signature made for something else never fits a command."""
MAX_LIFETIME_S = 7 * 24 * 3600.0
"""From ``issued_at`` to ``expires_at`` of a signed command; so long its nonce must be remembered."""
MAX_AHEAD_S = 300.0
"""How far ``issued_at`` may lie ahead of the board's clock."""
OPTIONAL = ("not_before", "timeout_s", "requester")
"""Fields that are signed if they are there; without them somebody could change when or how long a command runs."""

_SIGNATURE_BYTES = 64

Moment = str | float


class Sig(Struct, frozen=True):
    """The field ``sig`` of a command: the key's id, a nonce that is used once, the signature in base64."""

    key: Annotated[str, Meta(min_length=1, max_length=64)]
    nonce: Annotated[str, Meta(min_length=16, max_length=64, pattern=r"\A[A-Za-z0-9._-]+\Z")]
    value: Annotated[str, Meta(min_length=1, max_length=128)]

    @property
    def name(self) -> str:
        """What tells this nonce from all others."""
        return f"{self.key}:{self.nonce}"


def signed_bytes(op: str, device: str, command_id: str, request: Mapping[str, Any], nonce: str) -> bytes:
    """Return what is signed of a command.

    Raises:
        ValueError: its fields cannot be written so that all readers agree.
    """
    document = {
        "context": CONTEXT,
        "op": op,
        "device": device,
        "id": command_id,
        "args": request.get("args", {}),
        "issued_at": request.get("issued_at"),
        "expires_at": request.get("expires_at"),
        "nonce": nonce,
    }
    optional = {name: request[name] for name in OPTIONAL if request.get(name) is not None}
    return canonical(document | optional)


def sign(private_key_file: Path, op: str, device: str, command_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command's payload with its ``sig``; ``payload`` holds all other fields, the times among them.

    Raises:
        UsageError: the key cannot be used, the times are missing or too far apart, or a number cannot be signed.
    """
    require_library()
    seed = read_private(private_key_file)
    check_lifetime(payload)
    nonce = os.urandom(16).hex()
    try:
        message = signed_bytes(op, device, command_id, payload, nonce)
    except ValueError as error:
        raise UsageError(f"the command cannot be signed: {error}") from error
    key = public_of(seed)
    value = binascii.b2a_base64(signature(seed, message), newline=False).decode()
    return {**payload, "sig": {"key": key.id, "nonce": nonce, "value": value}}


def check_lifetime(request: Mapping[str, Any]) -> tuple[float, float]:
    """Return when a command that is signed was issued and when it expires, in seconds since the epoch.

    Raises:
        UsageError: BAD_SIGNATURE when either is missing, or they lie further apart than a nonce is remembered.
    """
    if request.get("issued_at") is None or request.get("expires_at") is None:
        raise UsageError("a signed command needs issued_at and expires_at", ErrorCode.BAD_SIGNATURE)
    try:
        issued, expires = clock.wall_seconds(request["issued_at"]), clock.wall_seconds(request["expires_at"])
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise UsageError(f"issued_at or expires_at is no time: {error}") from error
    if not 0 < expires - issued <= MAX_LIFETIME_S:
        days = f"{MAX_LIFETIME_S / 86400:.0f} days"
        raise UsageError(f"a signed command must expire after its issued_at, within {days}", ErrorCode.BAD_SIGNATURE)
    return issued, expires


def sig_of(request: Mapping[str, Any]) -> Sig:
    """Return a request's ``sig``.

    Raises:
        UsageError: BAD_SIGNATURE when there is none, or it does not look like one.
    """
    if request.get("sig") is None:
        raise UsageError("the command is not signed, and this agent demands that", ErrorCode.BAD_SIGNATURE)
    try:
        return msgspec.convert(request["sig"], Sig)
    except msgspec.ValidationError as error:
        raise UsageError(f"sig does not fit its schema: {located(error)}", ErrorCode.BAD_SIGNATURE) from error


def verify(keys: Mapping[str, PublicKey], op: str, device: str, command_id: str, request: Mapping[str, Any]) -> Sig:
    """Return a request's ``sig`` if one of ``keys``, by their ids, made it for exactly this command.

    Raises:
        UsageError: BAD_SIGNATURE; the message says what is wrong.
    """
    sig = sig_of(request)
    key = keys.get(sig.key)
    if key is None:
        raise UsageError(f"the command is signed with the key {sig.key!r}, which is not trusted here", ErrorCode.BAD_SIGNATURE)
    wrong = UsageError("the signature does not fit the command", ErrorCode.BAD_SIGNATURE)
    try:
        value = binascii.a2b_base64(sig.value.encode())
        message = signed_bytes(op, device, command_id, request, sig.nonce)
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    if len(value) != _SIGNATURE_BYTES or not _fits(key, message, value):
        raise wrong
    return sig


def require_library() -> None:
    """Make sure that signatures can be computed here, without loading what does it.

    Raises:
        UsageError: the library is not installed.
    """
    if find_spec("nacl") is None:
        raise UsageError("signatures need PyNaCl: pip install 'reconvene-agent[signing]'")


def new_seed() -> bytes:
    """Return a new private key."""
    return os.urandom(32)


def public_of(seed: bytes) -> PublicKey:
    """Return the public key of a private one."""
    from nacl.bindings import crypto_sign_seed_keypair

    return PublicKey(crypto_sign_seed_keypair(seed)[0])


def signature(seed: bytes, message: bytes) -> bytes:
    """Return the 64 bytes of the Ed25519 signature of a message."""
    from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

    return crypto_sign(message, crypto_sign_seed_keypair(seed)[1])[:_SIGNATURE_BYTES]


def _fits(key: PublicKey, message: bytes, value: bytes) -> bool:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        crypto_sign_open(value + message, key.raw)
    except BadSignatureError:
        return False
    return True
