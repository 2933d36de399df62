"""The whole probe of one board."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.device import Device
from reconvene_agent.core.kernel import devicetree
from reconvene_agent.core.kernel.files import HOST
from reconvene_agent.core.kernel.power import read_power
from reconvene_agent.daemon.probe import board
from reconvene_agent.daemon.probe.clock import clock_synchronized
from reconvene_agent.daemon.probe.memory import read_memory
from reconvene_agent.daemon.probe.processor import cpu_name, usable_cores
from reconvene_agent.daemon.probe.storage import read_storage
from reconvene_agent.daemon.probe.thermal import hottest_c


def probe_device(state_dir: Path, root: Path = HOST) -> Device:
    """Return the facts of the board whose files lie below ``root``, with the storage of ``state_dir``; it never fails."""
    return Device(
        model=board.model(root),
        compatible=devicetree.compatible(root),
        architecture=board.architecture(root),
        cpu=cpu_name(root),
        cores=usable_cores(root),
        memory=read_memory(root),
        storage=read_storage(state_dir),
        temperature_c=hottest_c(root),
        power=read_power(root),
        clock_synchronized=clock_synchronized(root),
        os=board.os_name(root),
        kernel=board.kernel(root),
    )
