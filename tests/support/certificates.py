"""A private certificate authority and a server's certificate, made by the ``openssl`` program."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """Make an authority; return its certificate. The key lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / f"{name}.pem"
    usage = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    _openssl(
        "req", "-x509", *_CURVE, "-days", "2", "-subj", f"/CN={name}", *usage,
        "-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate),
    )  # fmt: skip
    return certificate


def certificate(ca: Path, name: str, alternative: str, days: int = 2) -> tuple[Path, Path]:
    """Make a certificate for ``alternative``, such as ``IP:127.0.0.1``, signed by an authority; return it and its key.

    With 0 ``days`` it has expired within a second.
    """
    made, key, request, extension = (ca.parent / f"{name}.{suffix}" for suffix in ("pem", "key", "csr", "ext"))
    _openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
    extension.write_text(f"subjectAltName={alternative}\n")
    _openssl(
        "x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca.with_suffix(".key")), "-CAcreateserial",
        "-days", str(days), "-extfile", str(extension), "-out", str(made),
    )  # fmt: skip
    return made, key


def dated(ca: Path, name: str, alternative: str, begins: float, ends: float) -> tuple[Path, Path]:
    """Make a certificate as ``certificate`` does, which becomes valid and expires so many days from now."""
    made, key, request, settings, database = (
        ca.parent / f"{name}.{suffix}" for suffix in ("pem", "key", "csr", "conf", "database")
    )
    _openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
    database.write_text("")
    settings.write_text(
        f"[ca]\ndefault_ca=all\n[all]\ndatabase={database}\nrand_serial=yes\nnew_certs_dir={ca.parent}\ndefault_md=sha256\n"
        f"policy=any\nx509_extensions=extra\n[any]\ncommonName=supplied\n[extra]\nsubjectAltName={alternative}\n"
    )
    start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400)) for days in (begins, ends))
    _openssl(
        "ca", "-batch", "-notext", "-config", str(settings), "-cert", str(ca), "-keyfile", str(ca.with_suffix(".key")),
        "-startdate", start, "-enddate", end, "-in", str(request), "-out", str(made),
    )  # fmt: skip
    return made, key
