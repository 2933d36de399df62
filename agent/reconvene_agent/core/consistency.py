"""What must hold between the settings of a configuration, beyond the type of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reconvene_agent.core import topics, windows

if TYPE_CHECKING:
    from reconvene_agent.core.config import Config


def broker_address(url: str) -> tuple[str, int, bool]:
    """Return host, port and whether TLS is on, from a broker's URL.

    Raises:
        ValueError: the URL is none of ours.
    """
    parts = urlsplit(url)
    ports = {"mqtt": 1883, "mqtts": 8883}
    if parts.scheme not in ports or not parts.hostname:
        raise ValueError("must look like mqtt://host:1883 or mqtts://host:8883")
    if parts.username or parts.password:
        raise ValueError("must hold no user or password; use username and password_file")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must end after the port")
    if parts.port == 0:
        raise ValueError("must have a port from 1 to 65535")
    return parts.hostname, parts.port or ports[parts.scheme], parts.scheme == "mqtts"


def mistakes(config: Config) -> list[str]:
    """Return what does not go together, a line each."""
    problems = []
    broker = config.broker
    if broker.url:
        try:
            _, _, tls = broker_address(broker.url)
        except ValueError as error:
            problems.append(f"broker.url: {error}")
        else:
            if not tls and (broker.ca_file or broker.cert_file):
                problems.append("broker: ca_file and cert_file need an mqtts:// url")
    if bool(broker.cert_file) != bool(broker.key_file):
        problems.append("broker: cert_file and key_file go together")
    if broker.password_file and not broker.username:
        problems.append("broker: password_file needs a username")
    if not topics.valid_segment(broker.root):
        problems.append("broker.root: must be one topic level of letters, digits and . _ : -")
    if config.agent.device_id and not topics.valid_segment(config.agent.device_id):
        problems.append("agent.device_id: must be made of letters, digits and . _ : -, at most 128")
    specialize = config.specialize
    if not (specialize.bundle and specialize.data):
        if specialize.new_data_share:
            problems.append("specialize.new_data_share: needs a bundle and data in the same section, to start runs with")
        if config.drift.auto:
            problems.append("drift.auto: needs a bundle and data in the section specialize, to start runs with")
    for name in ("state_dir", "runtime_dir", "bundles_dir", "data_dir"):
        value = getattr(config.agent, name)
        if value and not Path(value).is_absolute():
            problems.append(f"agent.{name}: must be an absolute path")
    if config.security.trusted_keys and not Path(config.security.trusted_keys).is_absolute():
        problems.append("security.trusted_keys: must be an absolute path")
    if not all(map(topics.valid_segment, config.homeassistant.prefix.split("/"))):
        problems.append("homeassistant.prefix: must be topic levels of letters, digits and . _ : -")
    textfile = config.prometheus.textfile
    if textfile and not (Path(textfile).is_absolute() and textfile.endswith(".prom")):
        problems.append("prometheus.textfile: must be an absolute path that ends in .prom")
    for name in ("ca_file", "cert_file", "key_file", "password_file"):
        value = getattr(broker, name)
        if value and not _may_be_file(Path(value)):
            problems.append(f"broker.{name}: {value} is not a file")
    problems += [f"worker.windows: {mistake}" for text in config.worker.windows if (mistake := windows.mistake(text))]
    return problems


def _may_be_file(path: Path) -> bool:
    """Whether there is a file, as far as we may look: ``status`` is asked by users who must not see the service's secrets."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except OSError:
        return False
