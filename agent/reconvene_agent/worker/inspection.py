"""Entry of ``python -m reconvene_agent.worker.inspection``: tells line by line which of the worker's libraries can be loaded.

Each line is a JSON object on stdout, written before the next library is touched, so that whoever listens knows which one took
the process down. The libraries are imported in the order in which a run needs them.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib import import_module, metadata
from typing import Any

from reconvene_agent import __version__
from reconvene_agent.worker.expendable import become_expendable
from reconvene_agent.worker.memory import peak_mb

# Distributions by the module that is imported of them.
LIBRARIES = {
    "numpy": "numpy",
    "torch": "torch",
    "safetensors": "safetensors",
    "PIL": "pillow",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
}


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def wanted() -> dict[str, str]:
    """Return the versions that the installed package asks for, such as ``<3,>=2.6``, by distribution."""
    found = {}
    for line in metadata.requires("reconvene-agent") or ():
        requirement, _, marker = line.partition(";")
        name = requirement.rstrip("0123456789.,<>=!~ ")
        if "extra" in marker and "worker" in marker:
            found[name.strip()] = requirement[len(name) :].strip()
    return found


def main() -> int:
    say(python=platform.python_version(), agent=__version__)
    try:
        versions = wanted()
    except metadata.PackageNotFoundError:
        versions = {}  # it runs from a checkout that is not installed
    for module, distribution in LIBRARIES.items():
        say(importing=module, distribution=distribution, wanted=versions.get(distribution, ""))
        try:
            library = import_module(module)
        except ModuleNotFoundError as error:
            say(missing=error.name)
            continue
        except Exception as error:  # noqa: BLE001 - whatever a broken installation raises, the others are looked at too
            say(broken=f"{type(error).__name__}: {error}")
            continue
        say(version=getattr(library, "__version__", ""))
        if module == "torch":
            say(cuda=library.cuda.is_available())
        elif module == "onnxruntime":
            say(providers=library.get_available_providers())
    say(peak_mb=peak_mb())
    return 0


if __name__ == "__main__":
    become_expendable()
    sys.exit(main())
