"""What a board is and how it fares: the facts that a probe finds."""

from __future__ import annotations

from msgspec import Struct


class Memory(Struct, frozen=True):
    """Memory in MiB, to a tenth.

    ``total`` and ``available`` already honour the control group's limit, named by ``limited_by``.
    """

    total_mb: float
    available_mb: float
    swap_total_mb: float
    limited_by: str | None = None


class Power(Struct, frozen=True):
    """Flags of the power supply and the governor, now and at any time since boot; None where the board cannot tell."""

    under_voltage: bool | None
    throttled: bool | None
    under_voltage_since_boot: bool | None
    throttled_since_boot: bool | None


class Strain(Struct, frozen=True):
    """The hottest part in degrees Celsius, and whether the supply is too weak now; None where the board cannot tell.

    ``under_voltage_events`` is how often it has been since boot, where a board counts but does not tell it as it happens.
    """

    temperature_c: float | None = None
    under_voltage: bool | None = None
    under_voltage_events: int | None = None


class Storage(Struct, frozen=True):
    """The file system that holds the agent's state, in MiB, to a tenth."""

    path: str
    total_mb: float
    free_mb: float


class Device(Struct, frozen=True):
    """One board, probed. ``None`` stands for what this board cannot tell.

    Attributes:
        model: the board's name from its device tree, or the machine's product name.
        compatible: the device tree's ``compatible`` strings, most specific first.
        architecture: as ``uname -m`` says (aarch64, x86_64).
        cores: processors this process may use.
        temperature_c: the hottest thermal zone, degrees Celsius.
        clock_synchronized: whether a time service vouches for the clock.
    """

    model: str
    compatible: tuple[str, ...]
    architecture: str
    cpu: str
    cores: int
    memory: Memory
    storage: Storage
    temperature_c: float | None
    power: Power | None
    clock_synchronized: bool
    os: str
    kernel: str
