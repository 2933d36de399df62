"""Talking to systemd: ready, alive, stopping. Without systemd every call does nothing."""

from __future__ import annotations

import os
import socket


class Notifier:
    """The notification socket of the service manager, from the environment (sd_notify(3), sd_watchdog_enabled(3))."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        found = dict(os.environ) if environment is None else environment
        address = found.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = found.get("WATCHDOG_USEC", "") if own else ""
        self._interval = int(period) / 2e6 if period.isdecimal() and int(period) > 0 else None

    @property
    def interval_s(self) -> float | None:
        """Seconds between two signs of life: half the watchdog's period; None when there is no watchdog."""
        return self._interval

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in a few words what the service is doing; ``systemctl status`` shows it."""
        self._send(f"STATUS={text}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as manager:
                manager.sendto(text.encode(), self._address)
        except OSError:
            pass  # a manager that cannot be told, or is too busy to read, will notice by its watchdog
