"""A Mosquitto with the configuration and the ACL that the documentation ships, and the people and boards that come to it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from paho.mqtt import client as paho

from support.brokers import HOST, Mosquitto, free_port
from support.certificates import authority, certificate

SHIPPED = Path(__file__).parents[2] / "docs/mosquitto"
USERS = ("board-1", "board-2", "fleet", "viewer")
PASSWORD = "sesame"

Access = Literal["certificate", "password"]


class Shipped(Mosquitto):
    """The broker of docs/mosquitto: one port for certificates, one for passwords. Nothing is filled in but paths and ports."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = authority(folder, "ca")
        for user in USERS:
            certificate(self.ca, user, f"DNS:{user}")
            (folder / f"{user}.password").write_text(f"{PASSWORD}\n")
            (folder / f"{user}.password").chmod(0o600)
        made, key = certificate(self.ca, "broker", "IP:127.0.0.1")
        for source, target in ((self.ca, "ca.crt"), (made, "server.crt"), (key, "server.key"), (SHIPPED / "acl", "acl")):
            shutil.copy(source, folder / target)
        users = folder / "passwords"
        for user in USERS:
            new = () if users.exists() else ("-c",)
            subprocess.run(["mosquitto_passwd", "-b", *new, str(users), user, PASSWORD], check=True, capture_output=True)
        self.password_port = free_port()
        super().__init__(folder, "user root\n")  # where tests run as root, Mosquitto could not read their files otherwise

    def _written(self, folder: Path, settings: str) -> str:
        text = (SHIPPED / "mosquitto.conf").read_text()
        filled = {
            "/etc/mosquitto/": f"{folder}/",
            "/var/lib/mosquitto/": f"{folder}/",
            "listener 8883\n": f"listener {self.port} {HOST}\n",
            "listener 8884\n": f"listener {self.password_port} {HOST}\n",
        }
        for shipped, here in filled.items():
            assert shipped in text
            text = text.replace(shipped, here)
        return text + settings

    def port_for(self, access: Access) -> int:
        return self.port if access == "certificate" else self.password_port

    def broker(self, access: Access, user: str, **other: Any) -> dict[str, Any]:
        """Return the section ``broker`` of an agent's configuration."""
        if access == "certificate":
            mine = {"cert_file": str(self.folder / f"{user}.pem"), "key_file": str(self.folder / f"{user}.key")}
        else:
            mine = {"username": user, "password_file": str(self.folder / f"{user}.password")}
        return {"url": f"mqtts://{HOST}:{self.port_for(access)}", "ca_file": str(self.ca), **mine, **other}

    def prepare(self, access: Access, user: str) -> Callable[[paho.Client], None]:
        """Return what lets a client in."""
        return partial(self._let_in, access, user)

    def _let_in(self, access: Access, user: str, client: paho.Client) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        if access == "certificate":
            context.load_cert_chain(self.folder / f"{user}.pem", self.folder / f"{user}.key")
        else:
            client.username_pw_set(user, PASSWORD)
        client.tls_set_context(context)
