"""A worker that wants more memory than planned, on a kernel that can do something about it: it dies, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.daemon.worker.confinement import LIBRARIES_MB
from support import guests, machines
from support.guests import STATE, Guest
from support.models import shipped
from support.runs import archive
from support.workers import rogue

pytestmark = [pytest.mark.systemd, pytest.mark.long, pytest.mark.timeout(300)]

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
SCENARIO = r"""
agent=reconvene-agent
group=/sys/fs/cgroup/reconvene.slice/$agent.service
topics=te/device/board-1/service/$agent/cmd
property() { systemctl show $agent --property=$1 --value; }
told() { echo "told $*"; }
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
order specialize/1
told end "$(ended specialize/1)"
told limit "$(cat $group/worker/memory.max)"
told killed "$(sed -n 's/^oom_kill //p' $group/worker/memory.events)" "$(sed -n 's/^oom_kill //p' $group/agent/memory.events)"
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


def test_a_worker_over_its_limit_dies_alone(tmp_path: Path) -> None:
    if reason := machines.why_not():
        pytest.skip(f"NOT TESTED: a worker that wants too much memory, since {reason}")
    with Guest(tmp_path / "guest", guests.make_root()) as guest:
        guest.install(CONFIG)
        state = guest.root / STATE.lstrip("/")
        shipped(state / "bundles/ours", ModelSpec("resnet20", (1, 8, 8), 10))
        (state / "data").mkdir()
        archive(state / "data/digits.npz", 100)
        glutton = guest.root / "usr/local/bin/glutton"
        rogue(glutton, GLUTTON)
        glutton.write_text(re.sub(r"^#!\S+", "#!/usr/bin/python3", glutton.read_text(), count=1))
        packed = machines.pack(guest, SCENARIO)
    console = machines.run(packed, 200)
    told = dict(re.findall(r"^told (\w+) (.*)$", console, re.MULTILINE))
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
