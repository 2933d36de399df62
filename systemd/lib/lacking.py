"""What an interpreter lacks of the worker's requirements, one a line, and the constraints under which that may be installed.

Called by install.sh with the worker's interpreter: ``python lacking.py CONSTRAINTS OUT``. Torch is never among them, and what is
there already is never replaced: a board's own builds fit its hardware.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions, requires
from importlib.util import find_spec
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name


def main(constraints: Path, out: Path) -> None:
    have = {canonicalize_name(each.metadata["Name"]): each.version for each in reversed(list(distributions()))}
    for line in requires("reconvene-agent") or ():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": "worker"}):
            continue
        found = have.get(canonicalize_name(wanted.name))
        if found and wanted.specifier.contains(found, prereleases=True):
            continue
        if wanted.name == "torch" or (wanted.name == "onnxruntime" and find_spec("onnxruntime")):
            continue  # the latter comes as onnxruntime-gpu too
        if wanted.name == "numpy" and found and found.startswith("1."):
            wanted = Requirement("numpy>=1.26,<2")  # torch was built for this generation
        print(f"{wanted.name}{wanted.specifier}")
    lines = [line for line in constraints.read_text().splitlines() if line.strip() and not line.startswith("#")]
    kept = [line for line in lines if canonicalize_name(Requirement(line).name) not in have]
    kept += [f"{name}=={have[name]}" for name in ("torch", "onnxruntime-gpu") if name in have]
    out.write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
