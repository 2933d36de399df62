"""How the command line speaks: results on stdout, everything else on stderr; one line for an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core.errors import EXIT_OK, AgentError

PROGRAM = "reconvene-agent"


def prepare() -> None:
    """Let stdout and stderr bear what is printed, also where they are closed, or know fewer characters than we use."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as we live
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Print the command's one JSON document, in UTF-8 whatever the locale."""
    encoded = msgspec.json.encode(document)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.flush()
    sys.stdout.buffer.write(encoded + b"\n")
    sys.stdout.flush()


def answer(document: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> int:
    """Give a command's result in the form that was asked for; return the exit code of success."""
    if as_json:
        print_json(document)
    else:
        show(document)
    return EXIT_OK


def fail(error: AgentError, as_json: bool) -> int:
    """Report an error and return its exit code; as JSON the document holds it, and what the error kept of a result."""
    for line in error.message.splitlines():
        say(f"{PROGRAM}: error: {line}")
    try:
        if as_json:
            print_json(
                {
                    **(error.result or {}),
                    "error": {"code": error.code.value, "retryable": error.code.retryable, "detail": error.message},
                }
            )
        sys.stdout.flush()
    except OSError:
        silence()  # nobody reads it, or the disk is full: the line on stderr and the exit code have to do
    return error.exit_code


def silence() -> None:
    """Let what stdout no longer takes (``| head``) end the program quietly, also when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
