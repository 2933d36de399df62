#!/bin/sh
# check.sh: the agent on aarch64 as far as an emulator goes. The wheels are resolved here for aarch64, installed by install.sh into a
# small Debian for aarch64 whose programs run in qemu, and the job's steps are done there and held against the same steps here.
#
# Wants root, Debian or its kin on another processor, the network, this checkout's .venv (./install.sh dev) and about 4 GB below
# ~/.cache/reconvene-agent. QEMU_CPU is the processor that is emulated: cortex-a72 as in a Raspberry Pi 4 where nothing is said.
# Interrupted at any point it leaves no mount, no process and no half-made cache behind.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
CHECKOUT=$(dirname -- "$(dirname -- "$HERE")")
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/reconvene-agent
ROOT=$CACHE/debian-bookworm-arm64
WHEELS=$CACHE/wheels-arm64
WORK=$CACHE/check-arm64
GUEST=$WORK/root
DIGITS=$CHECKOUT/agent/reconvene_agent/cli/demo/digits
BINFMT=/proc/sys/fs/binfmt_misc
PYTHON=$CHECKOUT/.venv/bin/python
AGENT=reconvene-agent
export QEMU_CPU="${QEMU_CPU:-cortex-a72}"
# That of a Raspberry Pi 5 has instructions for which libraries have kernels of their own, and which a Raspberry Pi 4 lacks.
if [ "$QEMU_CPU" = cortex-a76 ]; then OTHER_CPU=cortex-a72; else OTHER_CPU=cortex-a76; fi

say() { printf 'check.sh: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- before anything is mounted ---------------------------------------------------------------------------------------

needs() {
    [ "$(id -u)" -eq 0 ] || die "only root can make another system's root and enter it"
    [ "$(uname -m)" != aarch64 ] || die "this is an aarch64 machine already: ./install.sh test"
    PATH=$PATH:/usr/sbin:/sbin
    missing=""
    have qemu-aarch64-static || missing="qemu-user-static"
    have debootstrap || missing="$missing debootstrap"
    if [ -n "$missing" ]; then
        have apt-get || die "missing: $missing"
        say "installing Debian packages: $missing"
        # shellcheck disable=SC2086  # a list of packages
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >&2 ||
            die "apt-get could not install: $missing"
    fi
    "$PYTHON" -c 'import numpy, onnxruntime, safetensors' 2>/dev/null || die "$CHECKOUT has no .venv with the worker's libraries: ./install.sh dev"
}

# register: let the kernel start aarch64 programs in qemu, which it holds open (F), so that it is found in the guest too.
register() {
    if [ ! -e "$BINFMT/register" ]; then
        mount -t binfmt_misc binfmt_misc "$BINFMT" 2>/dev/null ||
            die "binfmt_misc is missing in this kernel, or kept from this container: run this where root may mount it"
        MOUNTED=yes
    fi
    if [ ! -e "$BINFMT/qemu-aarch64" ]; then
        [ -r /usr/lib/binfmt.d/qemu-aarch64.conf ] || die "qemu-user-static has brought no /usr/lib/binfmt.d/qemu-aarch64.conf"
        cat /usr/lib/binfmt.d/qemu-aarch64.conf >"$BINFMT/register"
        REGISTERED=yes
    fi
    grep -q '^flags:.*F' "$BINFMT/qemu-aarch64" || die "the kernel knows qemu-aarch64 without the flag F: echo -1 >$BINFMT/qemu-aarch64 and run this again"
}

# Everything happens in mounts and processes of its own, which the kernel ends with the first of them, whatever ends that.
REGISTERED="" MOUNTED="" CAGE=""
end() {
    trap '' HUP INT TERM
    if [ -n "$CAGE" ]; then kill -KILL "$CAGE" 2>/dev/null && wait "$CAGE" 2>/dev/null || true; fi
    if [ -n "$REGISTERED" ]; then echo -1 >"$BINFMT/qemu-aarch64"; fi
    if [ -n "$MOUNTED" ]; then umount "$BINFMT"; fi
    rm -rf --one-file-system "$GUEST" "$WHEELS.new" "$ROOT.new"
}

if [ "${1:-}" != caged ]; then
    [ $# -eq 0 ] || die "it takes no arguments"
    needs
    mkdir -p "$CACHE"
    exec 9>"$CACHE/check-arm64.lock"
    flock -n 9 || die "another check.sh is at work"
    trap end EXIT
    trap 'exit 130' HUP INT TERM
    register
    rm -rf --one-file-system "$WORK" "$WHEELS.new"
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private "$0" caged </dev/null &
    CAGE=$!
    if wait "$CAGE"; then code=0; else code=$?; fi
    CAGE=""
    exit "$code"
fi

# --- how steps are done and told --------------------------------------------------------------------------------------

FAILED=""
BEGUN=$(date +%s)

# step NAME: do step_NAME. What it writes to descriptor 3 is told in the summary, all else is in a file.
step() {
    log=$WORK/$1.log
    if [ -n "$FAILED" ]; then
        printf 'left out   %-9s\n' "$1" >>"$WORK/summary"
        return
    fi
    say "$1"
    start=$(date +%s)
    # Not as a condition: the shell would go on after a command that fails.
    set +e
    (set -e; "step_$1" >"$log" 2>&1 3>"$WORK/told")
    code=$?
    set -e
    took=$(($(date +%s) - start))
    if [ "$code" -eq 0 ]; then verdict=holds; else verdict=FAILED FAILED=yes; fi
    printf '%-6s %4d s  %-9s %s\n' "$verdict" "$took" "$1" "$(paste -s -d ' ' "$WORK/told")" >>"$WORK/summary"
    tail -n 1 "$WORK/summary" >&2
    if [ -n "$FAILED" ]; then tail -n 25 "$log" | sed 's/^/    /' >&2; fi
}
tell() { printf '%s\n' "$*" >&3; }
# told COMMAND…: tell what it prints; where it fails, the step does. Within the words of tell it could not.
told() {
    text=$("$@")
    tell "$text"
}
wrong() { tell "$*"; exit 1; }

# inside COMMAND…: in the guest, without any network. enter does not come back.
enter() {
    exec unshare --net env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 QEMU_CPU="$QEMU_CPU" chroot "$GUEST" "$@"
}
inside() { (enter "$@"); }
agent() { inside "$AGENT" "$@"; }
here() { "$CHECKOUT/.venv/bin/$AGENT" "$@"; }
compare() { "$PYTHON" "$HERE/compare.py" "$@"; }
# member FILE EXPRESSION: of a JSON document, as Python says it of `it`.
member() { "$PYTHON" -c 'import json, sys; it = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"; }

# pretend CPU: what the kernel says of its processors in the guest. Libraries that read there what they may use come to grief over an
# x86-64 one.
pretend() {
    case $1 in
        cortex-a53) board=raspberry-pi-3b-plus ;;
        cortex-a72) board=raspberry-pi-4b ;;
        *) board=raspberry-pi-5 ;;
    esac
    umount "$GUEST/proc/cpuinfo" 2>/dev/null || true
    mount --bind "$CHECKOUT/tests/fixtures/boards/$board/proc/cpuinfo" "$GUEST/proc/cpuinfo"
    export QEMU_CPU="$1"
}

# --- the steps --------------------------------------------------------------------------------------------------------

step_root() {
    mkdir "$WORK/building"
    mount -t tmpfs -o size=2g building "$WORK/building"
    before=$(stat -c %Y "$ROOT.made" 2>/dev/null) || before=""
    TMPDIR=$WORK/building "$HERE/make_root.sh" "$ROOT"
    umount "$WORK/building"
    if [ "$before" = "$(stat -c %Y "$ROOT.made")" ]; then tell "Debian bookworm, from the cache"; else tell "Debian bookworm, made"; fi
    cp -a "$ROOT" "$GUEST"
    tell "($(du -sm "$GUEST" | cut -f1) MiB)"
}

# Each time anew, as on any machine; pip takes the files it chooses from the last run's where it finds the same ones there.
step_wheels() {
    if [ -d "$WHEELS" ]; then export PIP_FIND_LINKS="$WHEELS ${PIP_FIND_LINKS:-}"; fi
    "$CHECKOUT/install.sh" bundle-wheels --arch aarch64 --python 3.11 "$WHEELS.new"
    rm -rf "$WHEELS"
    mv "$WHEELS.new" "$WHEELS"
    if find "$WHEELS" -name '*.whl' ! -name '*aarch64*' ! -name '*-none-any.whl' | grep .; then wrong "wheels for another processor"; fi
    if find "$WHEELS" -name '*.whl' | grep -Ei '/(nvidia|cuda|triton|pytorch_triton)'; then wrong "CUDA came along"; fi
    tell "$(find "$WHEELS" -name '*.whl' | wc -l) for aarch64 and Python 3.11, no CUDA among them, $(du -sm "$WHEELS" | cut -f1) MiB"
}

step_guest() {
    mount --bind "$GUEST" "$GUEST"
    mount -t proc proc "$GUEST/proc"
    pretend "$QEMU_CPU"
    mount --rbind /sys "$GUEST/sys"
    mount --rbind /dev "$GUEST/dev"
    mount -t tmpfs run "$GUEST/run"
    mkdir -p "$GUEST/mnt/wheels" "$GUEST/mnt/digits" "$GUEST/srv/job"
    mount --bind -o ro "$WHEELS" "$GUEST/mnt/wheels"
    mount --bind -o ro "$DIGITS" "$GUEST/mnt/digits"
    cp "$HERE/compare.py" "$GUEST/srv/job"
    machine=$(inside uname -m)
    [ "$machine" = aarch64 ] || wrong "uname -m is $machine"
    [ "$(inside getconf LONG_BIT)" = 64 ] || wrong "it is no 64-bit system"
    tell "uname -m is $machine; $(inside python3 --version); $QEMU_CPU in $(qemu-aarch64-static --version | head -n 1 | cut -d' ' -f1-3)"
}

step_install() {
    inside /mnt/wheels/install.sh --broker mqtt://127.0.0.1:18830
    [ "$(inside systemctl is-enabled "$AGENT")" = enabled ] || wrong "the service is not enabled"
    inside grep -q '^url = "mqtt://127.0.0.1:18830"' "/etc/$AGENT/config.toml" || wrong "the configuration lacks the broker"
    tell "by install.sh, without a network: $(inside readlink "/opt/$AGENT/current"), the service enabled"
}

step_import() {
    told inside "/opt/$AGENT/current/bin/python" -c '
import platform, onnxruntime, torch
assert platform.machine() == "aarch64" and torch.version.cuda is None and not torch.cuda.is_available()
assert float(torch.ones(64, 64).matmul(torch.ones(64, 64)).sum()) == 64**3
print(f"torch {torch.__version__}, CPU build ({torch.backends.cpu.get_cpu_capability()}); onnxruntime {onnxruntime.__version__}")'
}

step_probe() {
    agent probe --json >"$WORK/probe.json"
    [ "$(member "$WORK/probe.json" 'it["architecture"]')" = aarch64 ] || wrong "probe does not say aarch64"
    told member "$WORK/probe.json" '"{architecture}, {cores} cores, profile {profile}".format(**it)'
}

step_prune() {
    agent bundle create /srv/job/bundle --model resnet20 --input 1x8x8 --classes 10 --seed 0
    cp -R "$GUEST/srv/job/bundle" "$WORK/bundle"
    agent prune /srv/job/bundle --sparsity 0.8 --profile generic-aarch64 --out /srv/job/pruned
    here prune "$WORK/bundle" --sparsity 0.8 --profile generic-aarch64 --out "$WORK/pruned"
    tell "resnet20, held against the one of $(uname -m):"
    told compare pruned "$GUEST/srv/job/pruned" "$WORK/pruned"
}

step_plan() {
    agent plan /srv/job/bundle --sparsities 0.5 0.8 --width-multipliers 1 --latency-ms 1000 --json >"$WORK/plan.json"
    told member "$WORK/plan.json" '"{} candidates measured, sparsity {} chosen".format(len(it["candidates"]), it["chosen"]["sparsity"])'
}

step_train() {
    agent specialize --bundle /srv/job/bundle --data /mnt/digits/digits.npz --sparsity 0.8 --latency-ms 1000 --epochs 1 \
        --out /srv/job/models --json >"$WORK/train.json"
    [ -e "$GUEST/srv/job/models/current/model.onnx" ] || wrong "nothing was released"
    told member "$WORK/train.json" '"{images[train]} images for an epoch, held-out accuracy {accuracy:.1%}, released".format(**it["training"])'
}

step_predict() {
    agent predict /mnt/digits/3.png /mnt/digits/7.png --model /srv/job/models --json >"$WORK/there.json"
    here predict "$DIGITS/3.png" "$DIGITS/7.png" --model "$GUEST/srv/job/models" --json >"$WORK/here.json"
    answers='[(each["label"], round(each["probability"], 4)) for one in it["predictions"] for each in one["classes"]]'
    there=$(member "$WORK/there.json" "$answers")
    ours=$(member "$WORK/here.json" "$answers")
    [ "$there" = "$ours" ] || wrong "$there, but $ours on $(uname -m)"
    tell "the same answers on both sides"
}

logits_there() {
    pretend "$1"
    inside "/opt/$AGENT/current/bin/python" /srv/job/compare.py logits /srv/job/models/current/model.onnx \
        /mnt/digits/digits.npz "/srv/job/$1.npz"
}

step_parity() {
    compare logits "$GUEST/srv/job/models/current/model.onnx" "$DIGITS/digits.npz" "$WORK/here.npz"
    own=$QEMU_CPU
    logits_there "$OTHER_CPU"
    logits_there "$own"
    tell "the release on $own and $(uname -m):"
    told compare same "$GUEST/srv/job/$own.npz" "$WORK/here.npz"
    tell "and on $OTHER_CPU:"
    told compare same "$GUEST/srv/job/$OTHER_CPU.npz" "$WORK/here.npz"
}

# A status that names problems (exit code 1) is an answer too.
answers() {
    agent status --json >"$WORK/status.json" 2>"$WORK/status.err" && return 0
    [ $? -eq 1 ]
}

# The daemon as the unit starts it, as its user; nothing answers where it looks for a broker.
step_daemon() {
    inside install -d -o "$AGENT" -g "$AGENT" "/run/$AGENT" "/var/lib/$AGENT"
    enter setpriv --reuid "$AGENT" --regid "$AGENT" --init-groups "/opt/$AGENT/current/bin/python" -m reconvene_agent.daemon \
        "/etc/$AGENT/config.toml" &
    daemon=$!
    tries=0
    until answers; do
        kill -0 "$daemon" || wrong "the daemon has ended"
        tries=$((tries + 1))
        [ "$tries" -lt 30 ] || wrong "no answer"
    done
    cat "$WORK/status.json"
    kill -TERM "$daemon"
    wait "$daemon" || wrong "it left with exit code $?"
    tell "up, answers status, and ends in order"
}

step_uninstall() {
    inside /mnt/wheels/install.sh uninstall --purge
    for left in "/opt/$AGENT" "/etc/$AGENT" "/var/lib/$AGENT" "/usr/local/bin/$AGENT" "/etc/systemd/system/$AGENT.service"; do
        if [ -e "$GUEST$left" ] || [ -L "$GUEST$left" ]; then wrong "$left is left"; fi
    done
    tell "nothing is left"
}

trap 'exit 130' HUP INT TERM
mkdir -p "$WORK"
for each in root wheels guest install import probe prune plan train predict parity daemon uninstall; do step "$each"; done
printf '\nThe agent on an emulated %s, each step with its seconds (%d s in all):\n' "$QEMU_CPU" $(($(date +%s) - BEGUN))
cat "$WORK/summary"
[ -z "$FAILED" ] || { say "what the steps wrote is in $WORK"; exit 1; }
printf 'every step holds\n'
