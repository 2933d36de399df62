"""The local socket: one JSON line in, one JSON line out. What is asked here never waits for the broker."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import AgentError, NotRunningError

TIMEOUT_S = 5.0
QUESTION_S = 1.0
RETRY_S = 0.1
MAX_LINE = 65536
_MODE = 0o660

Word = Literal["status", "pause", "resume"]

_object = msgspec.json.Decoder(dict[str, Any])


class ControlServer:
    """Answers on a Unix socket. Each question becomes a numbered ticket for the owner, who answers when it is its turn."""

    def __init__(self, path: Path, ask: Callable[[int, Word], None]) -> None:
        """Listen on ``path``; ``ask`` is called with each ticket and what is asked, from a thread of this object.

        Raises:
            AgentError: the socket cannot be made.
        """
        self._path = path
        self._ask = ask
        self._answers: dict[int, tuple[threading.Event, list[dict[str, Any]]]] = {}
        self._tickets = 0
        self._closing = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(_MODE)
            self._socket.listen(8)
        except OSError as error:
            self._socket.close()
            raise AgentError(f"the local socket {path} cannot be made: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def answer(self, ticket: int, document: dict[str, Any]) -> None:
        """Answer the question with this ticket; a late answer is dropped."""
        waiting = self._answers.get(ticket)
        if waiting is not None:
            waiting[1].append(document)
            waiting[0].set()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # closing alone would not wake up who waits in accept
        self._thread.join(RETRY_S)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._socket.accept()
            except OSError:
                self._closing.wait(RETRY_S)  # closed, or out of descriptors for a while
                continue
            with client, contextlib.suppress(OSError):
                self._converse(client)

    def _converse(self, client: socket.socket) -> None:
        question = _read_line(client, QUESTION_S)
        client.settimeout(TIMEOUT_S)
        try:
            asked = msgspec.convert(from_json(question, _object.decode).get("ask"), Word)
        except msgspec.DecodeError:
            words = ", ".join(get_args(Word))
            client.sendall(msgspec.json.encode({"error": f'only {{"ask": WORD}} is understood here; WORD: {words}'}) + b"\n")
            return
        self._tickets += 1
        ticket, done = self._tickets, threading.Event()
        box: list[dict[str, Any]] = []
        self._answers[ticket] = (done, box)
        self._ask(ticket, asked)
        done.wait(TIMEOUT_S)
        del self._answers[ticket]
        if box:
            client.sendall(msgspec.json.encode(box[0]) + b"\n")


def _read_line(client: socket.socket, seconds: float) -> bytes:
    """Return what a client says up to the end of its line, its hanging up or MAX_LINE bytes.

    Raises:
        TimeoutError: it took more than ``seconds`` altogether.
    """
    deadline = time.monotonic() + seconds
    line = b""
    while b"\n" not in line and len(line) < MAX_LINE:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        client.settimeout(left)
        piece = client.recv(4096)
        if not piece:
            break
        line += piece
    return line


def _connect(client: socket.socket, path: Path) -> None:
    """Connect, and wait while so many others wait that the queue is full.

    Raises:
        BlockingIOError: it stayed full for TIMEOUT_S.
        OSError: nobody listens there.
    """
    # Python's own timeout would make the socket non-blocking, and a full queue an error at once.
    seconds = int(TIMEOUT_S)
    limit = struct.pack("@ll", seconds, int((TIMEOUT_S - seconds) * 1e6))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    client.connect(os.fspath(path))
    client.settimeout(TIMEOUT_S)


def ask_status(path: Path) -> dict[str, Any]:
    """Ask the daemon behind a socket for its status; as ``ask``."""
    return ask(path, "status")


def ask(path: Path, word: Word) -> dict[str, Any]:
    """Ask the daemon behind a socket for something and return its answer.

    Raises:
        NotRunningError: nobody answers there.
        AgentError: we may not ask, or the daemon hangs.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            _connect(client, path)
            client.sendall(msgspec.json.encode({"ask": word}) + b"\n")
            with client.makefile("rb") as lines:
                line = lines.readline()
        except PermissionError as error:
            raise AgentError(f"you may not talk to the agent at {path}: join the group of its service, or use sudo") from error
        except (TimeoutError, BlockingIOError) as error:
            raise AgentError(f"the agent at {path} does not answer within {TIMEOUT_S:g} s") from error
        except OSError as error:
            raise NotRunningError(f"the agent is not running (nobody answers at {path})") from error
    try:
        return from_json(line, _object.decode)
    except msgspec.DecodeError as error:
        raise AgentError(f"the agent at {path} gave no answer") from error
