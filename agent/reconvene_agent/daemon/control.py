"""The local socket: one JSON line in, one JSON line out. ``status`` is asked here, and never waits for the broker."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core.errors import AgentError, NotRunningError

TIMEOUT_S = 5.0
MAX_LINE = 65536
_MODE = 0o660


class ControlServer:
    """Answers on a Unix socket. Each question becomes a numbered ticket for the owner, who answers when it is its turn."""

    def __init__(self, path: Path, ask: Callable[[int], None]) -> None:
        """Listen on ``path``; ``ask`` is called with each ticket, from a thread of this object.

        Raises:
            AgentError: the socket cannot be made.
        """
        self._path = path
        self._ask = ask
        self._answers: dict[int, tuple[threading.Event, list[dict[str, Any]]]] = {}
        self._tickets = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(str(path))
            path.chmod(_MODE)
            self._socket.listen(8)
        except OSError as error:
            raise AgentError(f"the local socket {path} cannot be made: {error.strerror or error}") from error
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def answer(self, ticket: int, document: dict[str, Any]) -> None:
        """Answer the question with this ticket; a late answer is dropped."""
        waiting = self._answers.get(ticket)
        if waiting is not None:
            waiting[1].append(document)
            waiting[0].set()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(TIMEOUT_S)
                self._converse(client)

    def _converse(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            question = lines.readline(MAX_LINE)
        try:
            asked = msgspec.json.decode(question, type=dict[str, Any]).get("ask")
        except (msgspec.DecodeError, UnicodeDecodeError):
            asked = None
        if asked != "status":
            client.sendall(msgspec.json.encode({"error": 'only {"ask": "status"} is understood here'}) + b"\n")
            return
        self._tickets += 1
        ticket, done = self._tickets, threading.Event()
        box: list[dict[str, Any]] = []
        self._answers[ticket] = (done, box)
        self._ask(ticket)
        done.wait(TIMEOUT_S)
        del self._answers[ticket]
        if box:
            client.sendall(msgspec.json.encode(box[0]) + b"\n")


def ask_status(path: Path) -> dict[str, Any]:
    """Ask the daemon behind a socket for its status.

    Raises:
        NotRunningError: nobody answers there.
        AgentError: we may not ask, or the daemon hangs.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        try:
            client.connect(os.fspath(path))
            client.sendall(b'{"ask":"status"}\n')
            with client.makefile("rb") as lines:
                line = lines.readline()
        except PermissionError as error:
            raise AgentError(f"you may not talk to the agent at {path}: join the group of its service, or use sudo") from error
        except TimeoutError as error:
            raise AgentError(f"the agent at {path} does not answer within {TIMEOUT_S:g} s") from error
        except OSError as error:
            raise NotRunningError(f"the agent is not running (nobody answers at {path})") from error
    try:
        document: dict[str, Any] = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise AgentError(f"the agent at {path} gave no answer") from error
    return document
