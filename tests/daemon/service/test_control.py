from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from reconvene_agent.core.errors import AgentError, NotRunningError
from reconvene_agent.daemon.service import control
from reconvene_agent.daemon.service.control import ControlServer, Word, ask, ask_status
from support.values import NASTY_JSON
from support.waiting import until

DOCUMENT = {"state": "idle", "problems": []}

Serve = Callable[..., ControlServer]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Return a function that starts a server whose owner answers every question at once, or never."""
    with contextlib.ExitStack() as stack:

        def start(answers: bool = True) -> ControlServer:
            def answer(ticket: int, word: str) -> None:
                if answers:
                    server.answer(ticket, {**DOCUMENT, "ticket": ticket, "asked": word})

            server = ControlServer(path, answer)
            stack.callback(server.close)
            return server

        yield start


def talk(path: Path, words: bytes) -> bytes:
    """Say something and return all that comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            client.sendall(words)
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                answer += piece
        return answer


def test_the_status_is_answered(path: Path, serve: Serve) -> None:
    serve()
    assert ask_status(path) == {**DOCUMENT, "ticket": 1, "asked": "status"}
    assert ask_status(path) == {**DOCUMENT, "ticket": 2, "asked": "status"}


def test_each_word_reaches_the_owner(path: Path, serve: Serve) -> None:
    serve()
    assert [ask(path, word)["asked"] for word in get_args(Word)] == ["status", "pause", "resume"]


def test_owner_and_group_may_ask_and_nobody_else(path: Path, serve: Serve) -> None:
    serve()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_stale_socket_file_is_replaced(path: Path, serve: Serve) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    serve()
    assert ask_status(path)["state"] == "idle"


def test_an_ordinary_file_in_its_place_is_replaced(path: Path, serve: Serve) -> None:
    path.parent.mkdir()
    path.write_text("x")
    serve()
    assert ask_status(path)["state"] == "idle"


def test_a_place_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(AgentError, match="cannot be made: Is a directory"):
        ControlServer(tmp_path / "folder", print)
    with pytest.raises(AgentError, match="cannot be made: AF_UNIX path too long"):
        ControlServer(tmp_path / ("x" * 150), print)


NONSENSE = [
    b"\n",
    b"status\n",
    b'"status"\n',
    b"{}\n",
    b'{"ask":"restart"}\n',
    b'{"ask":["status"]}\n',
    b'{"ask":"status"',
    b"x" * 200_000,
    b'{"a":' * 10_000 + b"\n",
    *(raw + b"\n" for raw in NASTY_JSON.values()),
]


@pytest.mark.parametrize("words", NONSENSE)
def test_nonsense_is_told_so_and_does_no_harm(path: Path, serve: Serve, words: bytes) -> None:
    serve()
    answer = talk(path, words)
    assert not answer or "is understood here" in msgspec.json.decode(answer)["error"]
    assert ask_status(path)["state"] == "idle"


def test_who_hangs_up_at_once_does_no_harm(path: Path, serve: Serve) -> None:
    serve()
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b'{"ask":"status"}\n')
    assert ask_status(path)["state"] == "idle"


def test_a_full_queue_is_waited_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        path.parent.mkdir()
        server.bind(str(path))
        server.listen(0)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
                waiting += 1
        answer: list[object] = []
        asking = threading.Thread(target=lambda: answer.append(ask_status(path)))
        asking.start()
        for _ in range(waiting):
            server.accept()[0].close()
        last, _ = server.accept()
        with last:
            last.recv(100)
            last.sendall(b'{"state":"idle"}\n')
        asking.join(10)
        assert answer == [{"state": "idle"}]


def test_a_queue_that_stays_full_is_a_daemon_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        path.parent.mkdir()
        server.bind(str(path))
        server.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(AgentError, match="does not answer within"):
            ask_status(path)


def test_who_says_nothing_does_not_keep_others_waiting(path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert control.QUESTION_S < control.TIMEOUT_S / 3
    monkeypatch.setattr(control, "QUESTION_S", 0.1)
    serve()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))
        assert ask_status(path)["state"] == "idle"


def test_who_dribbles_is_cut_off(path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "QUESTION_S", 0.2)
    serve()
    stopped = threading.Event()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))

        def dribble() -> None:
            with contextlib.suppress(OSError):
                while not stopped.wait(0.05):
                    client.sendall(b" ")
            stopped.set()

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            assert stopped.wait(5), "it is cut off although it never pauses for long"
        finally:
            stopped.set()
            thread.join()


def test_an_owner_that_hangs_is_told_apart_from_none(path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT_S", 0.3)
    serve(answers=False)
    with pytest.raises(AgentError, match=r"does not answer within 0\.3 s|gave no answer") as caught:
        ask_status(path)
    assert not isinstance(caught.value, NotRunningError)


def test_a_late_answer_is_dropped(path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT_S", 0.2)
    server = serve(answers=False)
    with pytest.raises(AgentError):
        ask_status(path)
    server.answer(1, DOCUMENT)
    server.answer(99, DOCUMENT)


def test_running_out_of_descriptors_for_a_while_does_not_silence_it(
    path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failures = socket.socket.accept, [errno.EMFILE, errno.ECONNABORTED]

    def flaky(self: socket.socket) -> Any:
        found = accept(self)
        if failures:
            found[0].close()
            raise OSError(failures.pop(), "for a while")
        return found

    monkeypatch.setattr(socket.socket, "accept", flaky)
    serve()
    for _ in range(2):
        with contextlib.suppress(NotRunningError, AgentError):
            ask_status(path)
    assert ask_status(path)["state"] == "idle"


def test_closing_ends_its_thread_and_removes_the_socket(path: Path, serve: Serve) -> None:
    before = threading.active_count()
    server = serve()
    assert threading.active_count() == before + 1
    server.close()
    until(lambda: threading.active_count() == before)
    assert not path.exists()
    with pytest.raises(NotRunningError):
        ask_status(path)


def test_nobody_there_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="the agent is not running"):
        ask_status(tmp_path / "missing.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(NotRunningError, match="the agent is not running"):
        ask_status(tmp_path / "dead.sock")


@pytest.mark.parametrize("answer", [b"", b"\n", b"[]\n", b"rubbish\n", b"\xff\n"])
def test_somebody_else_behind_the_socket(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def reply() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(AgentError, match="gave no answer"):
            ask_status(path)
        thread.join()


def test_who_may_not_ask_is_told_what_to_do(path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    serve()
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        with pytest.raises(AgentError, match="join the group of its service, or use sudo"):
            ask_status(path)
