"""Entry of ``reconvene-agent``: finds the command, runs it, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from reconvene_agent import __version__
from reconvene_agent.cli import output
from reconvene_agent.core.atomic import full_disk_is_no_disk
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError

# Every command has a module of its name in ``commands``, which is loaded when it is used.
COMMANDS: dict[str, str] = {
    "run": "run the agent (what the service does)",
    "status": "what the agent on this board is doing",
    "pause": "let the agent pause its work until resume",
    "resume": "let the agent go on after pause",
    "doctor": "what is wrong on this board, and what to do about it",
    "probe": "what this board is and how it fares",
    "profiles": "the device profiles, and which one fits this board",
    "plan": "find the width and the sparsity that fit the budget",
    "prune": "prune a bundle at initialisation",
    "specialize": "plan, prune, train and deploy, without the agent",
    "models": "the releases on this board: list, show, promote, roll back",
    "predict": "classify images with a deployed model",
    "bench": "time a bundle's dense model against a small one",
    "bundle": "create or verify a bundle",
    "keys": "keys for signed commands: generate, show, sign",
    "schema": "what the messages on the wire hold, for controllers",
    "fleet": "many agents over their broker: list, watch, command, roll out",
    "demo": "see the whole job on this machine",
}


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments as every other error is reported."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # What --help and --version printed must fail here, where that is understood, and not when Python leaves.
        sys.stdout.flush()
        super().exit(status, message)


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser; only ``command``'s own arguments are loaded."""
    parser = _Parser(
        prog=output.PROGRAM,
        description="Fit one shipped neural network to the board it runs on.",
        epilog="Exit codes and every command's JSON are described in docs/commands.md and docs/json.md.",
    )
    parser.add_argument("--version", action="version", version=f"{output.PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            import_module(f"reconvene_agent.cli.commands.{name}").add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    output.prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    as_json, debug = "--json" in words, "--debug" in words
    try:
        with full_disk_is_no_disk("writing the output"):
            arguments = build_parser(command).parse_args(words)
            as_json = bool(getattr(arguments, "json", False))
            code: int = import_module(f"reconvene_agent.cli.commands.{arguments.command}").run(arguments)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        output.silence()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        output.say("")
        return output.fail(AgentError("stopped", ErrorCode.INTERRUPTED), as_json)
    except Exception as error:  # noqa: BLE001 - the boundary of the program: one line for people, a traceback when asked
        if debug:
            traceback.print_exc()
        return output.fail(_understood(error), as_json)


def _understood(error: Exception) -> AgentError:
    """Return any failure as one that can be told in a line."""
    if isinstance(error, AgentError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return AgentError(f"{where}{error.strerror or error}")
    return AgentError(f"a defect in {output.PROGRAM}, please report it with what --debug shows: {type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
