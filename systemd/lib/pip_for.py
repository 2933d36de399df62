"""``pip download`` for another machine: ``python pip_for.py ARCH PYTHON CONSTRAINTS FOLDER ARGUMENT...``.

pip picks wheels for the machine it is told of, but judges environment markers (``; platform_machine == "x86_64"``) by the one it
runs on. That would leave out what the other one needs, and fetch CUDA for one that has none. So markers see the other one.
"""

from __future__ import annotations

import os
import sys
import tempfile

from pip._vendor.packaging import markers

GLIBCS = (17, 24, 26, 27, 28, 31, 34, 35)


def main(arch: str, python: str, constraints: str, folder: str, arguments: list[str]) -> int:
    here = markers.default_environment()
    there = {**here, "platform_machine": arch, "python_version": python, "python_full_version": f"{python}.0"}
    markers.default_environment = lambda: there
    if not markers.Marker(f'platform_machine == "{arch}" and python_version == "{python}"').evaluate():
        sys.exit("this pip cannot be told of another machine; use a Python 3.11 with pip 23 to 26")
    from pip._internal.cli.main import main as pip

    tag = "cp" + python.replace(".", "")
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in GLIBCS] + [f"manylinux2014_{arch}", f"linux_{arch}"]
    words = ["download", "-q", "--dest", folder, "--only-binary", ":all:", "--constraint", constraints]
    words += ["--implementation", "cp", "--python-version", python, "--abi", tag, "--abi", "abi3", "--abi", "none"]
    for platform in platforms:
        words += ["--platform", platform]
    return pip([*words, *arguments])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["PIP_NO_CACHE_DIR"] = "1"
        os.environ["TMPDIR"] = scratch
        sys.exit(main(*sys.argv[1:5], sys.argv[5:]))
