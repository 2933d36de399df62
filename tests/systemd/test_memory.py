"""A worker that wants more memory than planned, on a kernel that can do something about it: it dies, and nothing else does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.daemon.worker.confinement import LIBRARIES_MB
from support import guests, machines
from support.guests import STATE, Guest
from support.models import shipped
from support.runs import archive
from support.workers import rogue

pytestmark = [pytest.mark.systemd, pytest.mark.long, pytest.mark.timeout(700)]

LIMIT_MB = 64
CONFIG = f"""
[agent]
device_id = "board-1"
state_dir = "{STATE}"
runtime_dir = "/run/reconvene-agent"
trust_clock = true

[broker]
url = "mqtt://127.0.0.1:1883"

[worker]
python = "/usr/local/bin/glutton"

[budget]
training_memory_mb = {LIMIT_MB}

[specialize]
bundle = "ours"
data = "digits.npz"
"""
GLUTTON = """
ready(); hear()
eaten = []
while True:
    eaten.append(bytearray(b"x" * (16 << 20)))
"""
# What it says after ``told`` is what the test reads off the console.
WORDS = r"""
agent=reconvene-agent
group=/sys/fs/cgroup/reconvene.slice/$agent.service
topics=te/device/board-1/service/$agent/cmd
property() { systemctl show $agent --property=$1 --value; }
told() { echo "told $*"; }
killed() { sed -n 's/^oom_kill //p' $group/$1/memory.events; }
order() { mosquitto_pub -h 127.0.0.1 -r -q 1 -t "$topics/$1" -m '{"status":"init","args":{}}'; }
ended() {
    state=""
    until printf '%s' "$state" | grep -q '"status":"\(failed\|successful\)"'; do
        sleep 0.2
        state=$(mosquitto_sub -h 127.0.0.1 -C 1 -W 5 -t "$topics/$1")
    done
    printf '%s' "$state" | sed 's/.*"code":"\([A-Z_]*\)".*/\1/; s/.*"status":"successful".*/successful/'
}
pid=$(property MainPID)
"""
SCENARIO = r"""
order specialize/1
told end "$(ended specialize/1)"
told limit "$(cat $group/worker/memory.max)"
told killed "$(killed worker)" "$(killed agent)"
told same "$([ "$pid" = "$(property MainPID)" ] && echo yes)" "$(property NRestarts)" "$(cat $group/agent/cgroup.procs)" "$pid"
order restart/1
told restart "$(ended restart/1)"
told divided "$(cat /proc/$pid/cgroup)"
systemctl kill --kill-whom=main --signal=KILL $agent
until [ "$(property NRestarts)" = 1 ] && [ "$(property ActiveState)" = active ]; do sleep 0.5; done
told again "$([ "$pid" != "$(property MainPID)" ] && echo yes)"
order specialize/2
told end2 "$(ended specialize/2)"
told journal "$(journalctl -u $agent -o cat | grep -c 'planned again within less')"
"""

REAL_LIMIT = "240M"
"""So much has the whole service: a worker's libraries fit, and planning does not."""
REAL_CONFIG = f"""
[agent]
device_id = "board-1"
state_dir = "{STATE}"
runtime_dir = "/run/reconvene-agent"
trust_clock = true

[broker]
url = "mqtt://127.0.0.1:1883"

[specialize]
bundle = "ours"
data = "digits.npz"
"""
REAL_SCENARIO = r"""
mosquitto_sub -h 127.0.0.1 -t "$topics/specialize/1" | sed -n -u 's/.*"step":"\([a-z]*\)".*/step \1/p' &
order specialize/1
until [ "$(killed worker 2>/dev/null)" = 1 ]; do sleep 1; done
order ping/1
told ping "$(ended ping/1)"
told end "$(ended specialize/1)"
told killed "$(killed worker)" "$(killed agent)"
order ping/2
told ping2 "$(ended ping/2)"
told same "$([ "$pid" = "$(property MainPID)" ] && echo yes)" "$(property NRestarts)" "$(property ActiveState)"
told journal "$(journalctl -u $agent -o cat | grep -c 'planned again within less')"
"""


def prepare(guest: Guest, config: str) -> None:
    """Put the service into a guest, with something to train."""
    guest.install(config)
    state = guest.root / STATE.lstrip("/")
    shipped(state / "bundles/ours", ModelSpec("resnet20", (1, 8, 8), 10))
    (state / "data").mkdir()
    archive(state / "data/digits.npz", 100)


def told_by(console: str) -> dict[str, str]:
    return dict(re.findall(r"^told (\w+) (.*)$", console, re.MULTILINE))


def test_a_worker_over_its_limit_dies_alone(tmp_path: Path) -> None:
    if reason := machines.why_not():
        pytest.skip(f"NOT TESTED: a worker that wants too much memory, since {reason}")
    with Guest(tmp_path / "guest", guests.make_root()) as guest:
        prepare(guest, CONFIG)
        glutton = guest.root / "usr/local/bin/glutton"
        rogue(glutton, GLUTTON)
        glutton.write_text(re.sub(r"^#!\S+", "#!/usr/bin/python3", glutton.read_text(), count=1))
        packed = machines.pack(guest, WORDS + SCENARIO)
    console = machines.run(packed, 200)
    told = told_by(console)
    assert told.get("end") == "OOM_KILLED", console
    assert int(told["limit"]) == pytest.approx((0.7 * LIMIT_MB + LIBRARIES_MB) * 2**20, abs=4096)
    assert told["killed"] == "2 0", "planned again once, and the agent was not touched"
    same, restarts, inside, pid = told["same"].split()
    assert (same, restarts, inside) == ("yes", "0", pid)
    assert told["restart"] == "successful"
    assert told["divided"] == "0::/reconvene.slice/reconvene-agent.service/agent"
    assert told["again"] == "yes"
    assert told["end2"] == "OOM_KILLED"
    assert told["journal"] == "2"


def test_torch_that_finds_too_little_memory_is_killed_and_nothing_else(tmp_path: Path) -> None:
    """A real run, slowly: the kernel ends its worker twice, since it is planned once more, and the agent answers all the time."""
    if reason := machines.why_not():
        pytest.skip(f"NOT TESTED: torch in too little memory, since {reason}")
    try:
        with Guest(tmp_path / "guest", guests.make_root()) as guest:
            prepare(guest, REAL_CONFIG)
            guest.drop_in("less", f"[Service]\nMemoryMax={REAL_LIMIT}\n")
            packed = machines.pack(guest, WORDS + REAL_SCENARIO, heavy=True)
        console = machines.run(packed, 600, machines.HEAVY_MEMORY_MB)
    finally:
        shutil.rmtree(tmp_path / "guest", ignore_errors=True)  # gigabytes
    told = told_by(console)
    assert told.get("end") == "OOM_KILLED", console
    assert told["killed"] == "2 0", "planned again once, and the agent was not touched"
    assert (told["ping"], told["ping2"]) == ("successful", "successful")
    assert told["same"] == "yes 0 active"
    assert told["journal"] == "1"
    assert "step plan" in console, "its libraries were loaded, and it was at work"
