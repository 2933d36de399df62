"""Whether a time service vouches for the clock; boards without a battery boot with a wrong one."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.kernel.files import HOST

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def clock_synchronized(root: Path) -> bool:
    """Return whether the clock is synchronized: as systemd-timesyncd marks it, else as any service told the kernel."""
    try:
        marked = (root / "run/systemd/timesync/synchronized").exists()
    except OSError:
        marked = False
    return marked or (root == HOST and _kernel_synchronized())


def _kernel_synchronized() -> bool:
    import ctypes  # memory: most boards mark the file, so most daemons never need it

    class Timex(ctypes.Structure):
        """The beginning of the kernel's ``struct timex``, and room for the rest."""

        _fields_ = [
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_byte * 256),
        ]

    timex = Timex()
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return False
    return 0 <= state < _TIME_ERROR and not timex.status & _STA_UNSYNC
