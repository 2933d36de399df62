"""Programs that stand in for the worker's interpreter: honest ones without torch, and rogues.

A rogue gets ``-m reconvene_agent.worker --channel FD`` like any interpreter and then does as it likes. An honest one is the
real entry of the worker with an operation of our own in the place of the heavy ones.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from support.values import EPOCH, RELEASE

# Goes through every step, tells of an epoch and of a release, and waits at training for a file called ``go``.
WORK = (
    f"EPOCH, RELEASE = {EPOCH!r}, {RELEASE!r}"
    """
for step in Step:
    channel.progress(step, 0.0, step.value)
    if step is Step.TRAIN:
        channel.event("epoch", EPOCH)
        wait_for(GO, channel)
    channel.progress(step, 1.0)
channel.event("release", RELEASE)
return {"release": {"version": "r0001-00000000"}, "data": getattr(request, "data", None)}
"""
)

_ROGUE = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[-1]))
lines = channel.makefile("rb")
def say(type, **fields):
    channel.sendall(json.dumps({{"type": type, **fields}}).encode() + b"\\n")
def ready(protocol=1):
    say("ready", protocol=protocol, version="0", pid=os.getpid())
def hear():
    line = lines.readline()
    return json.loads(line) if line else None
def hang():
    while True:
        time.sleep(60)
"""

_HONEST = f"""#!{sys.executable}
import sys, time, types
from pathlib import Path
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Step
operations = types.ModuleType("reconvene_agent.worker.operations")
sys.modules[operations.__name__] = operations
def wait_for(path, channel):
    while not Path(path).exists():
        channel.check()
        time.sleep(0.01)
"""

_HONEST_END = """
operations.run = run
from reconvene_agent.worker.__main__ import main
sys.exit(main(sys.argv[3:]))
"""

# What a rogue does, and the word that is seen of it.
ROGUES: dict[str, str] = {
    "leaves without a word": "sys.exit(0)",
    "leaves after the handshake": "ready(); hear(); sys.exit(0)",
    "exits 3": "sys.stderr.write('out of luck\\n'); sys.exit(3)",
    "segfaults": "ready(); hear(); os.kill(os.getpid(), signal.SIGSEGV); hang()",
    "aborts": "ready(); hear(); os.abort()",
    "is killed": "ready(); hear(); os.kill(os.getpid(), signal.SIGKILL); hang()",
    "greets in another version": "ready(protocol=2); hang()",
    "does not greet": "say('progress', step='plan', fraction=0.5); hang()",
    "says rubbish": "ready(); channel.sendall(b'rubbish\\n'); hang()",
    "says bytes": "ready(); channel.sendall(bytes(range(128, 256)) + b'\\n'); hang()",
    "says something deep": "ready(); channel.sendall(b'{\"type\":' + b'[' * 50000 + b'\\n'); hang()",
    "says a line without an end": "ready()\nwhile True: channel.sendall(b'x' * 65536)",
    "stops in the middle of a line": 'ready(); hear(); channel.sendall(b\'{"type":"don\'); sys.exit(0)',
    "answers in a line over the limit": "ready(); say('done', result={'x': 'y' * (1 << 20)}); hang()",
}


def rogue(path: Path, body: str) -> str:
    """Write a rogue that does ``body``; return its path."""
    return _write(path, _ROGUE + textwrap.dedent(body))


def honest(path: Path, body: str) -> str:
    """Write a worker whose operation is ``body``, the inside of ``def run(request, channel)``; return its path."""
    return _write(path, _HONEST + "def run(request, channel):\n" + textwrap.indent(textwrap.dedent(body), "    ") + _HONEST_END)


def _write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)
