"""One guest for all tests of the service: booted once, with a broker that is not there yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconvene_agent.core.bundle import ModelSpec
from support import guests
from support.brokers import Mosquitto, listening
from support.guests import STATE, Guest
from support.models import shipped
from support.runs import archive

CONFIG = """
[agent]
device_id = "board-1"
state_dir = "/var/lib/reconvene-agent"
runtime_dir = "/run/reconvene-agent"
trust_clock = true
log_format = "json"

[broker]
url = "{url}"

[telemetry]
interval_s = 1.0

[specialize]
bundle = "ours"
data = "digits.npz"
"""
TRAINED = 600


@pytest.fixture(scope="package")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return the broker that the service is told of; the first test that needs it starts it."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    yield broker
    broker.stop()


@pytest.fixture(scope="package")
def guest(tmp_path_factory: pytest.TempPathFactory, absent: Mosquitto) -> Iterator[Guest]:
    """Return a guest in which the service has been started by its boot, with a bundle and data to train on."""
    if reason := guests.why_not():
        pytest.skip(f"NOT TESTED: the service under systemd, since {reason}")
    with Guest(tmp_path_factory.mktemp("guest"), guests.make_root()) as booted:
        booted.install(CONFIG.format(url=absent.url))
        state = booted.root / STATE.lstrip("/")
        shipped(state / "bundles/ours", ModelSpec("resnet20", (1, 8, 8), 10))
        (state / "data").mkdir()
        archive(state / "data/digits.npz", TRAINED)
        booted.boot()
        booted.run("useradd", "--create-home", "--groups", "reconvene-agent", "member")
        booted.run("useradd", "--create-home", "other")
        yield booted


@pytest.fixture
def service(guest: Guest) -> Guest:
    """Return the guest with the service running."""
    guest.run("systemctl", "reset-failed", guests.UNIT, check=False)
    guest.run("systemctl", "start", guests.UNIT)
    return guest


@pytest.fixture
def broker(absent: Mosquitto) -> Mosquitto:
    """Return the broker, running."""
    if not listening(absent.port):
        absent.start()
    return absent
