#!/bin/sh
# Shows the hook at work on an example guest, in a throw-away folder that stands for a node. install.sh --demo runs it.
set -eu
umask 022

python=/usr/bin/python3
checkout=$(unset CDPATH && cd -- "$(dirname -- "$0")/.." && pwd -P)
guest=$checkout/fixtures/xml/demo.xml

fail() {
    printf 'demo: %s\n' "$1" >&2
    exit 1
}

policy() { # JSON where PyYAML is missing: the demo works on any node
    if "$python" -I -c 'import yaml' 2>/dev/null; then
        policy=policy.yaml
        cat <<'TEXT'
version: 1
rules:
  - name: nfv
    match: {flavor: "nfv.*", pinned: true}
    placement: vcpu:0
TEXT
    else
        policy=policy.json
        cat <<'TEXT'
{"version": 1,
 "rules": [{"name": "nfv",
            "match": {"flavor": "nfv.*", "pinned": true},
            "placement": "vcpu:0"}]}
TEXT
    fi
}

show() { # show TITLE < text
    printf '\n%s\n' "$1"
    sed 's/^/    /'
}

result() {
    "$python" -I - "$guest" "$work/after.xml" "$work/node/var/log/emupin/audit.jsonl" <<'TEXT'
import difflib
import json
import sys


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.readlines()


before, after, audit = map(lines, sys.argv[1:])
sys.stdout.writelines(difflib.unified_diff(before, after or before, "as Nova wrote it", "as the policy wants it", n=2))
print("\nWhy: " + json.loads(audit[-1])["reason"])
TEXT
}

[ -x "$python" ] || fail "$python is missing: install the package python3 (3.9 or later)"
"$python" -I -c 'import difflib, json' 2>/dev/null ||
    fail "$python lacks parts of the standard library: it is python3-minimal alone: install the package python3"
[ -f "$checkout/hooks/qemu" ] || fail "$checkout/hooks/qemu is missing: run it from a complete checkout"
work=$(mktemp -d "${TMPDIR:-/tmp}/emupin-demo.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$work/node/etc/emupin" "$work/node/sys/devices/system/cpu"
cp -R "$checkout/hooks" "$checkout/src" "$work" # A copy: Python leaves its byte code beside what it runs.
echo 0-7 >"$work/node/sys/devices/system/cpu/online"
policy >"$work/policy"
cp "$work/policy" "$work/node/etc/emupin/$policy"

echo "emupin demo, in a throw-away folder. Nothing on this machine changes."
show "The policy:" <"$work/policy"
env -i LC_ALL=C PATH="$PATH" EMUPIN_ROOT="$work/node" \
    sh "$work/hooks/qemu" instance-0000002a prepare begin - <"$guest" >"$work/after.xml" 2>"$work/errors" ||
    fail "the hook ended with status $?: $(cat "$work/errors")"
result >"$work/result" || fail "the hook left no audit entry: $(cat "$work/errors")"
show "A guest with four vCPUs on CPUs 2-5. libvirt is about to start it and runs: hooks/qemu instance-0000002a prepare begin -" \
    <"$work/result"
cat <<'TEXT'

Next
  1. sudo ./install.sh                 on the node; without a policy it changes nothing
  2. sudoedit /etc/emupin/policy.yaml  start from policy.yaml.example beside it; `emupin policy check` reads it over
TEXT
