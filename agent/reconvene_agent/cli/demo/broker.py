"""An MQTT broker inside this process, for the demo and nothing else: it forgets what it holds for absent clients."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from types import TracebackType

from reconvene_agent.core.errors import AgentError, UsageError

HOST = "127.0.0.1"
# All that amqtt speaks. It hangs on what it does not understand, so the demo does not let anybody try MQTT 5 first.
PROTOCOL = "3.1.1"
START_TIMEOUT_S = 15.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


class EmbeddedBroker:
    """A broker on a free loopback port, running while the ``with`` block does."""

    def __init__(self) -> None:
        self.port = _free_port()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._finish: asyncio.Event | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    def __enter__(self) -> EmbeddedBroker:
        """Start.

        Raises:
            UsageError: amqtt is not installed.
            AgentError: the broker does not start.
        """
        try:
            import amqtt.broker  # noqa: F401 - looked for here, where its absence can be explained
        except ImportError as error:
            raise UsageError("the demo needs its broker: pip install 'reconvene-agent[demo]'") from error
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S) or self._failure is not None:
            raise AgentError(f"the embedded broker does not start: {self._failure or 'it takes too long'}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._finish is not None:
            self._loop.call_soon_threadsafe(self._finish.set)
        self._thread.join(START_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for us
            self._failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        from amqtt.broker import Broker

        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._finish = asyncio.Event()
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await broker.start()
        self._ready.set()
        await self._finish.wait()
        await broker.shutdown()
