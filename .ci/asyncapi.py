"""Writes docs/asyncapi.yaml, or says that it is not what the code is; no message is described in two places."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from reconvene_agent.cli.contract import asyncapi

FILE = Path(__file__).parents[1] / "docs/asyncapi.yaml"
HEAD = "# Made of the code by .ci/asyncapi.py --write; do not edit.\n"


class _Plain(yaml.SafeDumper):
    """Writes texts of many lines as such, and never a name for what stands in two places."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def written() -> str:
    """Return what the file must be."""
    return HEAD + yaml.dump(
        asyncapi.document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=130, default_flow_style=None
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the file; otherwise it is only checked")
    if parser.parse_args().write:
        FILE.write_text(written(), encoding="utf-8")
        return 0
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == written():
        return 0
    print(f"{FILE} is not what the code is: run 'python .ci/asyncapi.py --write'", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
