"""Entry of the daemon's process: ``python -m reconvene_agent.daemon [CONFIG]``. ``reconvene-agent run`` becomes this."""

from __future__ import annotations

import sys
from pathlib import Path

from reconvene_agent.daemon.service import lean


def main(arguments: list[str]) -> int:
    """Run the agent with the configuration file given, if any; return the exit code."""
    lean.postpone_unused()
    from reconvene_agent.core.errors import AgentError
    from reconvene_agent.daemon.service.loop import serve

    try:
        return serve(Path(arguments[0]) if arguments else None)
    except AgentError as error:
        for line in error.message.splitlines():
            print(f"reconvene-agent: error: {line}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
