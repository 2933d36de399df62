from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from reconvene_agent.core import keys, signing
from reconvene_agent.core.errors import UsageError

SEED = bytes(range(32))


def openssl(*arguments: object) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


def test_keys_are_those_of_openssl(tmp_path: Path) -> None:
    ours = tmp_path / "ours.pem"
    keys.write_private(ours, SEED)
    keys.write_public(tmp_path / "ours.pub.pem", signing.public_of(SEED))
    assert openssl("pkey", "-in", ours, "-pubout") == (tmp_path / "ours.pub.pem").read_bytes()
    theirs = tmp_path / "theirs.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", theirs)
    (tmp_path / "theirs.pub.pem").write_bytes(openssl("pkey", "-in", theirs, "-pubout"))
    theirs.chmod(0o600)
    assert signing.public_of(keys.read_private(theirs)) == keys.read_public(tmp_path / "theirs.pub.pem")


def test_a_private_key_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    keys.write_private(file, SEED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match=r"key\.pem is already there, and a key is never written over"):
        keys.write_private(file, bytes(32))
    assert keys.read_private(file) == SEED


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o400, False), (0o640, False), (0o644, True), (0o660, True), (0o601, True)]
)
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    file = tmp_path / "key.pem"
    keys.write_private(file, SEED)
    file.chmod(mode)
    if not refused:
        assert keys.read_private(file) == SEED
        return
    with pytest.raises(UsageError) as caught:
        keys.read_private(file)
    assert caught.value.message == f"the private key {file} is open to others (mode {mode:04o}): chmod o=,g-w {file}"
    subprocess.run(caught.value.message.partition(": ")[2].split(), check=True)
    assert keys.read_private(file) == SEED, "what it says to type helps"


def test_other_files_are_no_keys(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        keys.read_public(file)
    private, public = tmp_path / "private.pem", signing.public_of(SEED).pem
    keys.write_private(private, SEED)
    x25519 = openssl("genpkey", "-algorithm", "x25519")
    for content in (
        b"",
        b"\xff" * 100,
        private.read_bytes(),
        public[:60],
        public.replace(b"M", b"Q"),
        x25519,
        b"-----BEGIN A-----\n",
    ):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="does not hold an Ed25519 public key in PEM"):
            keys.read_public(file)
    file.write_bytes(public)
    with pytest.raises(UsageError, match=r"does not hold an Ed25519 private key in PEM, .*; it holds a PUBLIC KEY"):
        keys.read_private(file)


def test_a_key_has_an_id() -> None:
    assert signing.public_of(SEED).id == "56475aa75463474c"
