"""paho's client as we need it: it tells when it is over, when the broker acknowledges nothing, and says goodbye in order."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from reconvene_agent.daemon.broker.link import Link

CONNECT_TIMEOUT_S = 15.0
LINGER_S = 1.0
# A broker that takes publications and confirms none (one that throttles may do so) gets them again on a new connection. The
# largest message on a very slow line must be through by then.
STALLED_AFTER_S = 300.0

_VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class Client(paho.Client):
    """A client that tells when its network thread is over, also when paho or a callback failed at what a broker sent.

    And whether the broker still acknowledges what it gets. Either count is written by one thread only.
    """

    when_over: Callable[[Exception | None], None]
    _published = _acknowledged = 0
    _progress = 0.0

    def count_publication(self) -> None:
        if self._published == self._acknowledged:
            self._progress = time.monotonic()
        self._published += 1

    def count_acknowledgement(self) -> None:
        self._progress = time.monotonic()
        self._acknowledged += 1

    @property
    def stalled(self) -> bool:
        return self._published > self._acknowledged and time.monotonic() - self._progress > STALLED_AFTER_S

    tls_error: ssl.SSLError | None = None
    """What TLS failed with when something was read: that the broker refuses our certificate is seen no earlier."""

    def _sock_recv(self, bufsize: int) -> bytes:
        try:
            return super()._sock_recv(bufsize)
        except ssl.SSLError as error:
            self.tls_error = error
            raise

    def hear_last_words(self, connected: ssl.SSLSocket) -> None:
        """Read why a broker has hung up, where writing to it failed first."""
        try:
            connected.settimeout(LINGER_S)
            connected.recv(1)
        except ssl.SSLError as error:
            self.tls_error = self.tls_error or error
        except (OSError, ValueError):
            pass  # it has said nothing

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        try:
            code = super().loop_forever(timeout, retry_first_connection)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next connection may fare better
            self.when_over(error)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN
        self.when_over(None)
        return code


def new_client(link: Link, protocol: str, context: ssl.SSLContext | None) -> Client:
    """Return a client that has not connected yet; ``context`` is there where the link is TLS."""
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=link.client_id,
        clean_session=None if protocol == "5" else not link.session_s,
        protocol=_VERSIONS[protocol],
        reconnect_on_failure=False,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    if link.username:
        client.username_pw_set(link.username, link.password or None)
    if context is not None:
        client.tls_set_context(context)
    return client


def linger(connected: Any) -> None:
    """Let the broker be the one who hangs up, before paho closes the socket.

    A socket closed while the broker is still sending resets the connection. The broker then has lost us, whatever it has not
    read yet, an orderly goodbye among it, and publishes the last will.
    """
    until = time.monotonic() + LINGER_S
    with contextlib.suppress(OSError, ValueError):  # it was lost already
        connected.shutdown(socket.SHUT_WR)
        while (left_s := until - time.monotonic()) > 0:
            connected.settimeout(left_s)
            if not connected.recv(1 << 16):
                return
