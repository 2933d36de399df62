"""How the command line speaks: results on stdout, everything else on stderr; one line for an error."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from reconvene_agent.core.errors import AgentError

PROGRAM = "reconvene-agent"


def say(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Print the command's one JSON document."""
    encoded = msgspec.json.encode(document)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode() + "\n")
    sys.stdout.flush()


def fail(error: AgentError, as_json: bool) -> int:
    """Report an error and return its exit code; as JSON the document holds it, and what the error kept of a result."""
    for line in error.message.splitlines():
        say(f"{PROGRAM}: error: {line}")
    if as_json:
        kept: dict[str, Any] = getattr(error, "result", None) or {}
        print_json({**kept, "error": {"code": error.code.value, "retryable": error.code.retryable, "detail": error.message}})
    return error.exit_code


def silence_broken_pipe() -> None:
    """Let a closed pipe (``| head``) end the program quietly, also when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
