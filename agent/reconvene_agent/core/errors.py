"""Every way to fail: the codes that travel on the wire, the exceptions that carry them, the exit codes they become.

Adapters translate third-party exceptions into these and keep the cause; nothing else maps errors to exit codes.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class ErrorCode(str, Enum):
    """The error codes of the wire contract (docs/mqtt.md)."""

    INVALID_JSON = "INVALID_JSON"
    SCHEMA = "SCHEMA"
    UNSUPPORTED = "UNSUPPORTED"
    ID_REUSED = "ID_REUSED"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    REPLAYED = "REPLAYED"
    EXPIRED = "EXPIRED"
    CLOCK_UNSYNCED = "CLOCK_UNSYNCED"
    BUSY = "BUSY"
    OUTSIDE_WINDOW = "OUTSIDE_WINDOW"
    INFEASIBLE = "INFEASIBLE"
    NO_MEMORY = "NO_MEMORY"
    NO_DISK = "NO_DISK"
    NO_DATA = "NO_DATA"
    BAD_DATA = "BAD_DATA"
    BAD_BUNDLE = "BAD_BUNDLE"
    THERMAL = "THERMAL"
    DIVERGED = "DIVERGED"
    EXPORT_MISMATCH = "EXPORT_MISMATCH"
    VERIFY_FAILED = "VERIFY_FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    INTERRUPTED = "INTERRUPTED"
    OOM_KILLED = "OOM_KILLED"
    INTERNAL = "INTERNAL"

    @property
    def retryable(self) -> bool:
        """Whether the same command may succeed later without being changed."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        ErrorCode.BUSY,
        ErrorCode.CLOCK_UNSYNCED,
        ErrorCode.OUTSIDE_WINDOW,
        ErrorCode.THERMAL,
        ErrorCode.NO_MEMORY,
        ErrorCode.NO_DISK,
        ErrorCode.TIMED_OUT,
        ErrorCode.INTERRUPTED,
        ErrorCode.OOM_KILLED,
    }
)

EXIT_OK = 0
EXIT_DEGRADED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# One row per code: what a shell script can branch on. Documented in docs/commands.md.
EXIT_CODES: dict[ErrorCode, int] = {
    ErrorCode.INTERNAL: 1,
    ErrorCode.INVALID_JSON: EXIT_USAGE,
    ErrorCode.SCHEMA: EXIT_USAGE,
    ErrorCode.UNSUPPORTED: EXIT_USAGE,
    ErrorCode.ID_REUSED: EXIT_USAGE,
    ErrorCode.BAD_BUNDLE: 4,
    ErrorCode.NO_DATA: 5,
    ErrorCode.BAD_DATA: 5,
    ErrorCode.INFEASIBLE: 6,
    ErrorCode.NO_MEMORY: 7,
    ErrorCode.NO_DISK: 7,
    ErrorCode.OOM_KILLED: 7,
    ErrorCode.DIVERGED: 8,
    ErrorCode.EXPORT_MISMATCH: 8,
    ErrorCode.VERIFY_FAILED: 8,
    ErrorCode.BUSY: 9,
    ErrorCode.EXPIRED: 9,
    ErrorCode.CLOCK_UNSYNCED: 9,
    ErrorCode.OUTSIDE_WINDOW: 9,
    ErrorCode.THERMAL: 9,
    ErrorCode.TIMED_OUT: 10,
    ErrorCode.BAD_SIGNATURE: 11,
    ErrorCode.REPLAYED: 11,
    ErrorCode.CANCELED: EXIT_INTERRUPTED,
    ErrorCode.INTERRUPTED: EXIT_INTERRUPTED,
}


class AgentError(Exception):
    """A failure that is understood: one line that says what to do, and a code.

    ``message`` is shown to people, ``code`` to programs; ``result`` is what there is of a result all the same, such as the plan
    that shows by how much nothing fits. Whatever is not an AgentError is a defect of ours.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INTERNAL, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.result = result

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.code]


class UsageError(AgentError):
    """Wrong arguments, configuration or command payload."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.SCHEMA) -> None:
        super().__init__(message, code)


class BundleError(AgentError):
    """A bundle that is unknown, truncated, tampered with or contradicts itself."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ErrorCode.BAD_BUNDLE)


class NotRunningError(AgentError):
    """The daemon does not answer on its local socket."""

    exit_code = EXIT_NOT_RUNNING
