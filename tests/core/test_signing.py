from __future__ import annotations

import binascii
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import keys, signing
from reconvene_agent.core.errors import ErrorCode, UsageError

SEED = bytes(range(32))
TRUSTED = {key.id: key for key in (signing.public_of(SEED), signing.public_of(bytes(32)))}
PAYLOAD: dict[str, Any] = {
    "status": "init",
    "args": {"steps": 1},
    "issued_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-01T01:00:00Z",
    "timeout_s": 60.0,
}
ME = ("rollback", "board-1", "42")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "key.pem"
    keys.write_private(file, SEED)
    return file


@pytest.fixture(scope="module")
def signed(key: Path) -> dict[str, Any]:
    return signing.sign(key, *ME, PAYLOAD)


def refused(op: str, device: str, command_id: str, request: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        signing.verify(TRUSTED, op, device, command_id, request)
    assert caught.value.code is ErrorCode.BAD_SIGNATURE
    return caught.value.message


def test_what_is_signed_fits(signed: dict[str, Any]) -> None:
    assert signing.verify(TRUSTED, *ME, signed).key == signing.public_of(SEED).id
    assert {name: value for name, value in signed.items() if name != "sig"} == PAYLOAD


def test_it_still_fits_when_it_was_written_in_another_way(signed: dict[str, Any]) -> None:
    shuffled = dict(reversed(signed.items())) | {"timeout_s": 60, "not_before": None, "somebody": "else's field", "rev": 3}
    assert signing.verify(TRUSTED, *ME, shuffled)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "args": lambda m: m | {"args": {"steps": 2}},
    "no args": lambda m: {name: value for name, value in m.items() if name != "args"},
    "issued": lambda m: m | {"issued_at": "2026-01-01T00:00:01Z"},
    "expires": lambda m: m | {"expires_at": "2026-01-01T02:00:00Z"},
    "timeout": lambda m: m | {"timeout_s": 61},
    "no timeout": lambda m: m | {"timeout_s": None},
    "not before": lambda m: m | {"not_before": "2026-01-01T00:30:00Z"},
    "requester": lambda m: m | {"requester": "somebody else"},
    "nonce": lambda m: m | {"sig": m["sig"] | {"nonce": "0" * 32}},
    "other key": lambda m: m | {"sig": m["sig"] | {"key": signing.public_of(bytes(32)).id}},
    "short value": lambda m: m | {"sig": m["sig"] | {"value": "AAAA"}},
    "no base64": lambda m: m | {"sig": m["sig"] | {"value": "A"}},
    "not ASCII": lambda m: m | {"sig": m["sig"] | {"value": "é" * 86}},
    "a number": lambda m: m | {"args": {"steps": 2**60}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_nothing_of_it_can_be_changed(signed: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    assert refused(*ME, change(signed)) == "the signature does not fit the command"


@pytest.mark.parametrize("other", [("promote", "board-1", "42"), ("rollback", "board-2", "42"), ("rollback", "board-1", "43")])
def test_it_is_for_one_operation_one_device_one_id(signed: dict[str, Any], other: tuple[str, str, str]) -> None:
    assert refused(*other, signed) == "the signature does not fit the command"


@given(st.binary(min_size=64, max_size=64))
def test_no_other_value_fits(value: bytes) -> None:
    sig = {"key": signing.public_of(SEED).id, "nonce": "0" * 32, "value": binascii.b2a_base64(value).decode()}
    refused(*ME, PAYLOAD | {"sig": sig})


def test_who_did_not_sign_is_told_so(signed: dict[str, Any]) -> None:
    assert refused(*ME, PAYLOAD) == "the command is not signed, and this agent demands that"
    assert "'0000000000000000', which is not trusted here" in refused(*ME, signed | {"sig": signed["sig"] | {"key": "0" * 16}})
    for sig in (
        "text",
        {},
        {**signed["sig"], "nonce": "short"},
        {**signed["sig"], "nonce": "x" * 20 + "\n"},
        {**signed["sig"], "value": 7},
    ):
        assert refused(*ME, signed | {"sig": sig}).startswith("sig does not fit its schema: ")


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"expires_at": None}, "needs issued_at and expires_at"),
        ({"issued_at": None}, "needs issued_at and expires_at"),
        ({"expires_at": "soon"}, "is no time"),
        ({"expires_at": "2025-12-31T23:59:59Z"}, "within 7 days"),
        ({"expires_at": "2026-01-08T00:00:01Z"}, "within 7 days"),
        ({"args": {"steps": 2**60}}, "cannot be signed"),
    ],
)
def test_what_cannot_be_signed_is_told_before(key: Path, times: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        signing.sign(key, *ME, PAYLOAD | times)


def test_openssl_signs_and_checks_the_same(key: Path, signed: dict[str, Any], tmp_path: Path) -> None:
    """Another implementation, from the documented bytes alone."""
    message, value, public = tmp_path / "message", tmp_path / "value", tmp_path / "public.pem"
    nonce = signed["sig"]["nonce"]
    message.write_text(
        '{"args":{"steps":1},"context":"reconvene-agent command 1","device":"board-1","expires_at":"2026-01-01T01:00:00Z",'
        f'"id":"42","issued_at":"2026-01-01T00:00:00Z","nonce":"{nonce}","op":"rollback","timeout_s":60}}'
    )
    value.write_bytes(binascii.a2b_base64(signed["sig"]["value"]))
    public.write_bytes(signing.public_of(SEED).pem)
    subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", message, "-sigfile", value],
        check=True, capture_output=True,
    )  # fmt: skip
    theirs = subprocess.run(
        ["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", message], check=True, capture_output=True
    ).stdout
    assert theirs == value.read_bytes()


_LOADED = """
import sys
from reconvene_agent.core import signing
signing.require_library()
assert not any(name.startswith("nacl") for name in sys.modules)
"""


def test_the_library_is_not_loaded_before_it_is_used() -> None:
    subprocess.run([sys.executable, "-c", _LOADED], check=True)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, key: Path) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"signatures need PyNaCl: pip install 'reconvene-agent\[signing\]'"):
        signing.sign(key, *ME, PAYLOAD)


def test_a_signed_payload_survives_the_wire(signed: dict[str, Any]) -> None:
    assert signing.verify(TRUSTED, *ME, msgspec.json.decode(msgspec.json.encode(signed)))
