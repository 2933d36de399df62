"""What Home Assistant takes of a device discovery document: its documented keys, device classes and units; and its templates.

Home Assistant itself is not installed here: it is a whole system of hundreds of packages that wants one newest Python.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import jinja2
import msgspec

TOPIC = re.compile(r"[^#+]+/device/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")

_AVAILABILITY = {"availability_topic", "availability_template", "payload_available", "payload_not_available"}
_ROOT = _AVAILABILITY | {"device", "origin", "components", "state_topic", "command_topic", "qos", "encoding"}
_DEVICE = {"identifiers", "name", "manufacturer", "model", "model_id", "sw_version", "hw_version", "serial_number"}
_ORIGIN = {"name", "sw_version", "support_url"}
_ENTITY = {"platform", "unique_id", "name", "device_class", "entity_category", "icon", "qos"}
_OF_PLATFORM = {
    "sensor": _ENTITY | {"state_topic", "value_template", "unit_of_measurement", "state_class", "expire_after", "force_update"},
    "button": _ENTITY | {"command_topic", "command_template", "payload_press", "retain"},
}
_UNITS: dict[str | None, set[str]] = {
    "temperature": {"°C", "°F", "K"},
    "duration": {"d", "h", "min", "s", "ms", "μs"},
    "data_size": {"bit", "kbit", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB"},
    None: {"%"},
}

_environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
_environment.globals["utcnow"] = lambda: datetime.now(timezone.utc)


def check(topic: str, document: dict[str, Any]) -> None:
    """Assert that Home Assistant takes this document."""
    assert TOPIC.fullmatch(topic), topic
    assert set(document) <= _ROOT
    assert set(document["device"]) <= _DEVICE
    assert document["device"]["identifiers"]
    assert set(document["origin"]) <= _ORIGIN
    assert document["origin"]["name"]
    ids = [component["unique_id"] for component in document["components"].values()]
    assert len(set(ids)) == len(ids)
    for key, component in document["components"].items():
        assert set(component) <= _OF_PLATFORM[component["platform"]], key
        assert component["name"]
        if component["platform"] == "button":
            assert not set("#+") & set(component["command_topic"])
            continue
        assert component["state_topic"]
        if "unit_of_measurement" in component:
            assert component["unit_of_measurement"] in _UNITS[component.get("device_class")], key
            assert component["state_class"] == "measurement"
        else:
            assert "device_class" not in component, "these classes are of numbers"
            assert "state_class" not in component, "a state class makes it a number"


def shown(component: dict[str, Any], payload: bytes) -> str | None:
    """Return the state that a sensor shows after this message on its topic; None for unknown."""
    variables: dict[str, Any] = {"value": payload.decode()}
    if payload:
        variables["value_json"] = msgspec.json.decode(payload)
    text = _environment.from_string(component["value_template"]).render(variables)
    if text == "None":
        return None
    if "unit_of_measurement" in component:
        float(text)
    return text


def available(document: dict[str, Any], payload: bytes) -> str:
    """Return what a message on the availability topic means: ``online`` or ``offline``."""
    template = _environment.from_string(document["availability_template"])
    return template.render(value_json=msgspec.json.decode(payload))


def pressed(component: dict[str, Any]) -> bytes:
    """Return what a button publishes when it is pressed now."""
    return _environment.from_string(component["command_template"]).render(value="PRESS").encode()
