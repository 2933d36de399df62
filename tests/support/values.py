"""Values that many tests need, with everything that does not matter filled in."""

from __future__ import annotations

from hypothesis import strategies as st

from reconvene_agent.core.bundle import BundleManifest, ModelSpec
from reconvene_agent.core.device import Device, Memory, Storage
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.profile import Compute, Match, Profile, Thermal
from reconvene_agent.core.release import Latency, Release

# What a JSON reader can give us.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

# JSON that is well formed and bad for whoever reads it.
NASTY_JSON = {
    "nothing": b"",
    "space": b"  ",
    "half": b'{"status":"in',
    "no text": b'{"status":"\xff"}',
    "encoded surrogate": b'{"status":"\xed\xa0\x80"}',
    "lone surrogate": b'{"status":"\\ud800"}',
    "deep list": b'{"args":' + b"[" * 100_000,
    "deep object": b'{"args":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
    "long number": b'{"args":' + b"9" * 5000 + b"}",
    "large number": b'{"args":1e999}',
    "not a number": b'{"args":NaN}',
    "trailing": b'{"status":"init"}x',
    "utf-16": '{"status":"init"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"status":"init"}',
    "zeros": b"\0" * 64,
}


# What the real worker tells of an epoch and of a release.
EPOCH = {"epoch": 1, "epochs": 2, "loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1, "best": True}
RELEASE = {
    "path": "/state/models/r0001-00000000",
    "onnx": "/state/models/r0001-00000000/model.onnx",
    "version": "r0001-00000000",
    "bytes": 4096,
    "sha256": "0" * 64,
    "precision": "float32",
    "latency_ms": {"p50": 1.0, "p95": 2.0, "runs": 100, "spread": 0.0},
    "accuracy": 0.75,
    "sparsity": 0.9,
}

STATUS_KEYS = [
    *("state", "device_id", "version", "uptime_s", "updated_at", "broker", "job", "paused", "updated", "release", "device"),
    "problems",
]
"""What the status document holds, in its order."""


def device(cores: int = 4, available_mb: float = 1000.0, free_mb: float = 4000.0) -> Device:
    """Return a board."""
    return Device(
        model="Some Board",
        compatible=("maker,board",),
        architecture="aarch64",
        cpu="Cortex-A72",
        cores=cores,
        memory=Memory(2000.0, available_mb, 0.0),
        storage=Storage("/state", 8000.0, free_mb),
        temperature_c=50.0,
        power=None,
        clock_synchronized=True,
        os="Debian",
        kernel="6.1",
    )


def profile(inference_threads: int = 0, training_threads: int = 0, batch_cap: int = 32) -> Profile:
    """Return a profile without limits."""
    return Profile(
        name="some-board",
        title="Some board",
        match=Match("aarch64"),
        compute=Compute(inference_threads, training_threads, ("CPUExecutionProvider",)),
        thermal=Thermal(80.0, 70.0),
        batch_cap=batch_cap,
    )


def manifest(**changes: object) -> BundleManifest:
    """Return the manifest of a bundle that ships its seed alone."""
    settings: dict[str, object] = {"format": 1, "model": ModelSpec("resnet20", (1, 8, 8), 10), "seed": 7, **changes}
    return BundleManifest(**settings)  # type: ignore[arg-type]


def release(version: str = "r0001-00000000", accuracy: float | None = 0.9) -> Release:
    """Return the manifest of a deployed model."""
    return Release(
        version=version,
        created="2026-01-01T00:00:00.000Z",
        agent_version="0.1.0",
        bundle="b" * 64,
        model=ModelSpec("resnet20", (1, 8, 8), 10),
        labels=(),
        sparsity=0.9,
        method=MethodOptions(),
        widths={"conv1": 4},
        params=1000,
        nonzero=900,
        macs=5000,
        accuracy=accuracy,
        latency_ms=Latency(1.0, 2.0, 100),
        mean=(0.5,),
        std=(0.25,),
        onnx_sha256="0" * 64,
        onnx_bytes=4096,
    )
