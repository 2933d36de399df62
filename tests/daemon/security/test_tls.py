from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from reconvene_agent.core.config import BrokerSection
from reconvene_agent.core.errors import UsageError
from reconvene_agent.daemon.security.tls import check_files, tls_context
from support.certificates import authority, certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return files that are as they should be, by the settings that name them."""
    folder = tmp_path_factory.mktemp("files")
    ca = authority(folder, "ours")
    cert, key = certificate(ca, "board-1", "DNS:board-1")
    password = folder / "password"
    password.write_text("sesame\n")
    password.chmod(0o600)
    return {"ca_file": str(ca), "cert_file": str(cert), "key_file": str(key), "password_file": str(password)}


def refusal(broker: BrokerSection) -> str:
    def begin() -> None:
        check_files(broker)
        tls_context(broker.ca_file, broker.cert_file, broker.key_file)

    with pytest.raises(UsageError) as caught:
        begin()
    assert "\n" not in caught.value.message
    return caught.value.message


def test_good_files_are_used(files: dict[str, str]) -> None:
    found = check_files(BrokerSection(**files))
    assert found is not None
    assert (found.file, found.name) == (files["cert_file"], "board-1")
    context = tls_context(files["ca_file"], files["cert_file"], files["key_file"])
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_without_files_there_is_nothing_to_check() -> None:
    assert check_files(BrokerSection()) is None
    context = tls_context("", "", "")
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", ["key_file", "password_file"])
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused_with_what_to_type(
    files: dict[str, str], tmp_path: Path, name: str, mode: int
) -> None:
    copy = Path(shutil.copy(files[name], tmp_path / "copy"))
    copy.chmod(mode)
    broker = BrokerSection(**files | {name: str(copy)})
    said = refusal(broker)
    assert said.startswith(f"broker.{name}: the ")
    assert said.endswith(f"{copy} is open to others (mode {mode:04o}): chmod o=,g-w {copy}")
    subprocess.run(said.rpartition(": ")[2].split(), check=True)
    check_files(broker)


def test_a_group_may_read_a_secret_since_root_hands_it_to_the_service_so(files: dict[str, str], tmp_path: Path) -> None:
    copy = Path(shutil.copy(files["key_file"], tmp_path / "copy"))
    copy.chmod(0o640)
    check_files(BrokerSection(**files | {"key_file": str(copy)}))


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file", "password_file"])
def test_a_file_that_is_gone(files: dict[str, str], name: str) -> None:
    assert (
        refusal(BrokerSection(**files | {name: "/nowhere"}))
        == f"broker.{name}: /nowhere cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff\xfe"])
def test_a_file_that_holds_something_else(files: dict[str, str], tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    said = refusal(BrokerSection(**files | {name: str(file)}))
    assert str(file) in said
    assert said.startswith("broker.")


def test_a_key_of_another_certificate(files: dict[str, str], tmp_path: Path) -> None:
    _, other = certificate(Path(files["ca_file"]), "other", "DNS:other")
    said = refusal(BrokerSection(**files | {"key_file": str(other)}))
    assert said == f"broker.key_file: {other} is not the key of the certificate {files['cert_file']}"


def test_an_encrypted_key_is_told_and_nobody_is_asked(files: dict[str, str], tmp_path: Path) -> None:
    locked, opened = tmp_path / "locked.key", tmp_path / "opened.key"
    words = ["openssl", "pkey", "-in", files["key_file"], "-aes256", "-passout", "pass:sesame", "-out", str(locked)]
    subprocess.run(words, check=True, capture_output=True)
    said = refusal(BrokerSection(**files | {"key_file": str(locked)}))
    assert said == f"broker.key_file: {locked} is encrypted, and nobody is there to unlock it: openssl pkey -in {locked} -out NEW"
    with pytest.raises(UsageError, match="cannot be used"):
        tls_context("", files["cert_file"], str(locked))
    subprocess.run([*words[:4], "-out", str(opened)], check=True, capture_output=True)
    tls_context("", files["cert_file"], str(opened))
