"""The public keys that are trusted: PEM files in one folder, read when the agent starts."""

from __future__ import annotations

import stat
from pathlib import Path

from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.keys import PublicKey, read_public
from reconvene_agent.core.signing import require_library


def trusted_keys(folder: str) -> dict[str, PublicKey]:
    """Return the keys in a folder by their ids.

    Raises:
        UsageError: there is no key, a file is no key, somebody else may put keys there, or the library is missing.
    """
    require_library()
    found = {}
    try:
        _refuse_writable(Path(folder))
        for file in sorted(Path(folder).glob("*.pem")):
            _refuse_writable(file)
            key = read_public(file)
            found[key.id] = key
    except OSError as error:
        raise UsageError(f"security.trusted_keys: {error.filename or folder}: {error.strerror or error}") from error
    if not found:
        raise UsageError(f"security.trusted_keys: no public key is in {folder}: put one there, NAME.pem, or take the setting out")
    return found


def _refuse_writable(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022:
        raise UsageError(f"security.trusted_keys: others may write {path} (mode {mode:04o}): chmod go-w {path}")
