"""The state folder tells in which format it is written, so that an older agent leaves a newer one's state alone."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core import atomic
from reconvene_agent.core.errors import AgentError, ErrorCode

FILE = "format"
FORMAT = 1
"""Raised when an agent that knows only the number before would misread the state or lose part of it."""


def claim(state_dir: Path) -> None:
    """Refuse the state of a newer agent, untouched; mark any other as written in our format.

    Raises:
        AgentError: UNSUPPORTED, the state is in a newer format.
    """
    path = state_dir / FILE
    try:
        found = int(path.read_bytes())
    except (OSError, ValueError):
        found = 0  # a folder from before there was a mark, or a new one
    if found > FORMAT:
        raise AgentError(
            f"the state in {state_dir} was written by a newer reconvene-agent (format {found}, this one knows {FORMAT}): "
            "install that version again, or move the folder away to begin anew",
            ErrorCode.UNSUPPORTED,
        )
    if found < FORMAT:
        try:
            atomic.write_bytes(path, b"%d\n" % FORMAT)
        except (AgentError, OSError):
            pass  # the disk is full: an agent comes up all the same, and the next start marks the folder
