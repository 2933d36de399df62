"""A TCP proxy that lets a connection suffer: cut, swallowed, half open, delayed or slow."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from support.brokers import HOST

_PIECE = 65536
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes connections on to the port ``target`` of this machine, as well or as badly as told."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        while self._pairs:
            for end in self._pairs.pop():
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def black_hole(self) -> None:
        """Swallow everything from now on, both ways, connections that are made meanwhile included."""
        self._flows.clear()

    def half_open(self) -> None:
        """Let the target lose every connection, while its clients hear nothing of it."""
        self._flows.clear()
        for _, target in self._pairs:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)

    def delay(self, seconds: float) -> None:
        """Let everything arrive later, both ways."""
        self._delay_s = seconds

    def slow_down(self, bytes_per_s: float) -> None:
        """Let no more bytes through, each way."""
        self._bytes_per_s = bytes_per_s

    def heal(self) -> None:
        """Be a good connection again; what a fault has held back is gone, with the connections it was on."""
        self._delay_s = self._bytes_per_s = 0.0
        if not self._flows.is_set():
            self.cut()
            self._flows.set()

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                target = socket.create_connection((HOST, self.target))
            except OSError:
                client.close()
                continue
            self._pairs.append((client, target))
            self._begin(self._pass_on, client, target)
            self._begin(self._pass_on, target, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE if not self._bytes_per_s else 512):
                if not self._flows.is_set():
                    self._flows.wait()
                    continue
                if self._delay_s:
                    time.sleep(self._delay_s)
                if self._bytes_per_s:
                    time.sleep(len(piece) / self._bytes_per_s)
                target.sendall(piece)
        if self._flows.is_set():
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
