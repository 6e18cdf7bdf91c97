#!/bin/sh
# Installs emupin on a node, removes it again, or shows it at work without installing anything: see --help.
set -eu
umask 022
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH

python=/usr/bin/python3
marker='# emupin: places the emulator threads of libvirt QEMU guests'
launcher_marker="# emupin: starts the command line from the library below this prefix"
here=$(unset CDPATH && cd -- "$(dirname -- "$0")" && pwd -P)

action=install # install | uninstall | demo
check=         # set by --check: look only
prefix=/usr/local
staged=${DESTDIR:+yes}
root=${DESTDIR-}
changes=0
work=
stage=

usage() {
    cat <<'TEXT'
Usage: ./install.sh [--check] [--prefix DIR] [--uninstall]
       ./install.sh --demo

Installs the hook (/etc/libvirt/hooks/qemu, or qemu.d/50-emupin where hooks/qemu belongs to somebody else), the library
and the command `emupin`. Needs /usr/bin/python3, 3.9 or later; no network. A second run changes nothing.

  --check        print what would change, change nothing; status 1 if something would, 2 if it cannot be installed
  --prefix DIR   where bin/ and lib/ go (default /usr/local)
  --uninstall    remove what was installed; policy and audit trail stay
  --demo         show the hook at work on an example guest in a throw-away folder; needs no root
  --help         this text

Environment
  DESTDIR          put everything below this folder (for packages and images): libvirt is not reloaded
  LIBVIRT_VERSION  libvirt's version where it cannot be asked (libvirt in a container, DESTDIR): 9.0.0
TEXT
}

say() { printf '%s\n' "$*"; }
remark() { printf '%s\n' "$*" >&2; }

fail() { # fail LINE…: what is wrong, then what to do
    printf 'install.sh: %s\n' "$1" >&2
    shift
    for line; do printf '  %s\n' "$line" >&2; done
    if [ -n "$check" ]; then exit 2; fi
    exit 1
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --check) check=yes ;;
        --uninstall) action=uninstall ;;
        --demo) action=demo ;;
        --prefix=*) prefix=${1#--prefix=} ;;
        --prefix)
            if [ $# -lt 2 ]; then misused '--prefix needs a folder'; fi
            prefix=$2
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) misused "unknown argument: $1" ;;
        esac
        shift
    done
    case $prefix in
    *'
'*) misused '--prefix must be one line' ;;
    /*) ;;
    *) misused "--prefix must start with /: $prefix" ;;
    esac
    while [ "${prefix%/}" != "$prefix" ]; do prefix=${prefix%/}; done
    case $root in '' | /*) ;; *) root=$PWD/$root ;; esac
    while [ "${root%/}" != "$root" ]; do root=${root%/}; done
}

misused() {
    remark "install.sh: $1"
    remark "  ./install.sh --help lists what is allowed"
    exit 2
}

clean_up() {
    if [ -n "$stage" ]; then rm -rf -- "$stage"; fi
    if [ -n "$work" ]; then rm -rf -- "$work"; fi
}

# --- steps: one line each ---------------------------------------------------------------------------------------------

due() { # due WHAT: something has to change; false where --check only looks
    changes=$((changes + 1))
    if [ -z "$check" ]; then return 0; fi
    say "would change $1"
    return 1
}

is_superuser() { [ "$(id -u)" -eq 0 ]; }

own() { # own PATH…: root's, whoever owns the checkout; an ordinary user's DESTDIR stays that user's
    if is_superuser; then chown -R root:root -- "$@"; fi
}

has_mode() { # has_mode MODE PATH
    if is_superuser; then
        [ -n "$(find -H "$2" -prune -perm "$1" -user 0 -group 0)" ]
    else
        [ -n "$(find -H "$2" -prune -perm "$1")" ]
    fi
}

directory() { # directory MODE PATH
    if [ -d "$2" ] && has_mode "$1" "$2"; then
        say "ok $2"
    elif due "$2"; then
        mkdir -p -- "$2"
        chmod "$1" "$2"
        if is_superuser; then chown root:root "$2"; fi
        say "changed $2"
    fi
}

is_installed() { # is_installed MODE NEW TARGET: a real file, same bytes, right mode
    [ -f "$3" ] && [ ! -h "$3" ] && cmp -s "$2" "$3" && has_mode "$1" "$3"
}

# The new file waits, complete and with its final mode, in a private folder on the same file system. Never in qemu.d:
# libvirt runs every executable file there.
put() { # put MODE NEW TARGET [FOLDER]
    if is_installed "$1" "$2" "$3"; then
        say "ok $3"
        return
    fi
    if [ -d "$3" ] && [ ! -h "$3" ]; then
        fail "$3 is a folder" "move it away, then run install.sh again"
    fi
    due "$3" || return 0
    mkdir -p -- "${3%/*}"
    stage=$(mktemp -d "${4:-${3%/*}}/.emupin-XXXXXX")
    cat "$2" >"$stage/new"
    chmod "$1" "$stage/new"
    own "$stage/new"
    if [ -h "$3" ] && [ -d "$3" ]; then rm -f -- "$3"; fi # mv would follow it
    mv -f -- "$stage/new" "$3"
    rmdir "$stage"
    stage=
    say "changed $3"
}

remove() { # remove PATH…: files and folders of ours
    for path; do
        if [ -e "$path" ] || [ -h "$path" ]; then
            if due "$path"; then
                rm -rf -- "$path"
                say "removed $path"
            fi
        fi
    done
}

remove_empty() { # remove_empty FOLDER…
    if [ -n "$check" ]; then return; fi
    for path; do rmdir -- "$path" 2>/dev/null || :; done
}

# --- the library ------------------------------------------------------------------------------------------------------

modules() { # modules FOLDER: what belongs into an installed library, one a line
    (cd "$1" && find emupin -type f \( -name '*.py' -o -name py.typed -o -name '*.html' -o -name '*.css' -o -name '*.js' \) \
        ! -name '.*' | sort)
}

installed_modules() {
    (cd "$1" && find emupin ! -type d ! -path '*/__pycache__/*' | sort)
}

is_compiled() { # is_compiled FOLDER: every module has byte code that this node's Python takes without recompiling
    "$python" -I -B - "$1" <<'TEXT'
import importlib.util
import os
import sys


def is_fresh(path):
    fact = os.stat(path)
    stamp = (0, int(fact.st_mtime), fact.st_size)
    want = importlib.util.MAGIC_NUMBER + b"".join((part & 0xFFFFFFFF).to_bytes(4, "little") for part in stamp)
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            return file.read(16) == want
    except FileNotFoundError:
        return False


paths = (os.path.join(folder, name) for folder, _, names in os.walk(sys.argv[1]) for name in names)
sys.exit(not all(is_fresh(path) for path in paths if path.endswith(".py")))
TEXT
}

has_wrong_modes() { # has_wrong_modes FOLDER
    if is_superuser; then
        find "$1" \( -type f ! -perm 0644 -o -type d ! -perm 0755 -o ! -user 0 -o ! -group 0 \) | grep -q .
    else
        find "$1" \( -type f ! -perm 0644 -o -type d ! -perm 0755 \) | grep -q .
    fi
}

has_library() { # has_library FOLDER: FOLDER/emupin is what install.sh would put there
    [ -d "$1/emupin" ] && [ ! -h "$1/emupin" ] || return 1
    [ "$(modules "$here/src")" = "$(installed_modules "$1")" ] || return 1
    for module in $(modules "$here/src"); do
        cmp -s "$here/src/$module" "$1/$module" || return 1
    done
    ! has_wrong_modes "$1/emupin" && is_compiled "$1/emupin"
}

# Replaced as a whole, by two renames: modules of an older version do not stay, and a hook that starts meanwhile
# does not find half of each version.
library() { # library FOLDER
    if has_library "$1"; then
        say "ok $1/emupin"
        return
    fi
    due "$1/emupin" || return 0
    mkdir -p -- "$1"
    stage=$(mktemp -d "$1/.emupin-XXXXXX")
    for module in $(modules "$here/src"); do
        mkdir -p -- "$stage/${module%/*}"
        cat "$here/src/$module" >"$stage/$module"
    done
    # Time stamps, said explicitly: with SOURCE_DATE_EPOCH in the environment Python would hash every module at every start.
    "$python" -I -m compileall -q --invalidation-mode timestamp -s "$stage" -p "$lib" "$stage/emupin" ||
        fail "$python cannot compile $here/src/emupin" "is the checkout complete? get a fresh one and try again"
    own "$stage/emupin"
    "$python" -I - "$1/emupin" "$stage" <<'TEXT'
import contextlib
import os
import sys

live, stage = sys.argv[1:]
with contextlib.suppress(FileNotFoundError):
    os.rename(live, os.path.join(stage, "old"))
os.rename(os.path.join(stage, "emupin"), live)
TEXT
    rm -rf -- "$stage"
    stage=
    say "changed $1/emupin"
}

launcher() {
    cat <<TEXT
#!$python
$launcher_marker
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib", "emupin"))

from emupin.cli import main

sys.exit(main())
TEXT
}

# --- the hook and its place -------------------------------------------------------------------------------------------

is_ours() { # is_ours FILE: it has our marker as its second line, with whatever line ends an editor gave it
    [ -f "$1" ] && sed -n 2p "$1" | tr -d '\r' | grep -qxF "$marker"
}

is_mixed() { # is_mixed FILE: ours with something put before it, or copied into another hook
    [ -f "$1" ] && ! is_ours "$1" && grep -qxF "$marker" "$1"
}

exists() { [ -e "$1" ] || [ -h "$1" ]; }

ours_in_folder() { # ours_in_folder FOLDER: our copies there that libvirt would run, 50-emupin first, one a line
    for file in "$1/50-emupin" "$1"/* "$1"/.[!.]*; do
        if is_ours "$file"; then
            case $file in
            "$1/50-emupin") say "$file" ;;
            *) if [ -x "$file" ]; then say "$file"; fi ;;
            esac
        fi
    done | awk '!seen[$0]++'
}

libvirt_version() { # 9.0.0; nothing where libvirt cannot be asked
    if [ -n "${LIBVIRT_VERSION-}" ]; then
        say "$LIBVIRT_VERSION"
        return
    fi
    for program in libvirtd virtqemud virsh; do
        version=$("$program" --version 2>/dev/null) || continue
        say "${version##* }"
        return
    done
}

reads_folder() { # reads_folder VERSION: libvirt runs qemu.d since 6.5.0
    major=${1%%.*}
    minor=${1#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "${minor:-0}" -ge 5 ]; }
}

choose_place() { # sets place, and spare: our other copies, one a line, which must go
    hooks=$root/etc/libvirt/hooks
    present=$(ours_in_folder "$hooks/qemu.d")
    version=$(libvirt_version)
    case $version in
    [0-9]*.[0-9]*) if reads_folder "$version"; then folder=yes; else folder=no; fi ;;
    '') folder=unknown ;;
    *) fail "cannot read libvirt's version: $version" "set LIBVIRT_VERSION, for example LIBVIRT_VERSION=9.0.0" ;;
    esac
    if is_mixed "$hooks/qemu"; then
        fail "$hooks/qemu is emupin's hook mixed with something else" \
            "take emupin's part out of it (or remove the file), then run install.sh again"
    fi
    if [ -n "$present" ] && [ "$folder" != no ]; then
        place=$(printf '%s\n' "$present" | sed -n 1p)
        spare=$(printf '%s\n' "$present" | sed 1d)
        if is_ours "$hooks/qemu"; then spare=$hooks/qemu${spare:+
$spare}; fi
    elif ! exists "$hooks/qemu" || is_ours "$hooks/qemu"; then
        place=$hooks/qemu
        spare=$present
    else
        choose_beside_foreign
    fi
}

choose_beside_foreign() {
    if [ "$folder" = no ]; then
        fail "$hooks/qemu belongs to somebody else, and libvirt $version runs only that one file" \
            "libvirt 6.5.0 and later also run the files in $hooks/qemu.d: upgrade libvirt," \
            "or move the present hook away if it is not needed, then run install.sh again"
    fi
    if [ "$folder" = unknown ]; then
        fail "$hooks/qemu belongs to somebody else, and libvirt cannot be asked whether it reads $hooks/qemu.d" \
            "say which libvirt it is, for example LIBVIRT_VERSION=9.0.0 (6.5.0 or later reads that folder)"
    fi
    if exists "$hooks/qemu.d/50-emupin" && ! is_ours "$hooks/qemu.d/50-emupin"; then
        fail "$hooks/qemu.d/50-emupin is not emupin's" "move it away, then run install.sh again"
    fi
    place=$hooks/qemu.d/50-emupin
    spare=
}

escaped() { # escaped TEXT: as a single-quoted shell word, made safe for the right side of sed's s|…|…|
    printf '%s\n' "$1" | sed "s/'/'\\\\''/g; s/[&|\\\\]/\\\\&/g"
}

hook_file() {
    grep -q '^lib=' "$here/hooks/qemu" || fail "$here/hooks/qemu has no line lib=" "get a fresh checkout"
    sed "s|^lib=.*|lib='$(escaped "$lib")'|" "$here/hooks/qemu"
}

hook() {
    hook_file >"$work/hook"
    before=$changes
    put 0755 "$work/hook" "$place" "$(staging_folder)"
    if [ -n "$spare" ]; then
        printf '%s\n' "$spare" >"$work/spare"
        while IFS= read -r file; do remove "$file"; done <"$work/spare"
        remove_empty "$hooks/qemu.d"
    fi
    if [ "$changes" -ne "$before" ]; then hook_changed=yes; fi
}

staging_folder() { # beside qemu.d; and made only when something will be written
    if [ -z "$check" ]; then mkdir -p -- "$hooks"; fi
    say "$hooks"
}

# --- after the files --------------------------------------------------------------------------------------------------

label() { # SELinux labels by path, where there are any
    if [ -n "$staged$check" ] || [ "$changes" -eq 0 ] || ! command -v restorecon >/dev/null 2>&1; then return; fi
    for path in /etc/libvirt/hooks /etc/emupin /var/lib/emupin /var/log/emupin "$prefix/bin/emupin" "$prefix/lib/emupin"; do
        if [ -e "$path" ]; then restorecon -R "$path" || remark "warning: restorecon failed for $path"; fi
    done
}

hang_up() { # hang_up PIDFILE: SIGHUP for the daemon it names, if it is one
    if [ ! -f "$1" ]; then return 1; fi
    read -r pid <"$1" || [ -n "$pid" ] || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    read -r comm 2>/dev/null <"/proc/$pid/comm" || return 1
    case $comm in libvirtd | virtqemud) kill -HUP "$pid" ;; *) return 1 ;; esac
}

# libvirt looks for hooks when it starts and on SIGHUP only.
reload() {
    if [ -n "$staged$check" ] || [ -z "${hook_changed-}" ]; then return; fi
    reloaded=
    for unit in libvirtd virtqemud; do
        if command -v systemctl >/dev/null 2>&1 && systemctl --quiet is-active "$unit" 2>/dev/null; then
            systemctl reload "$unit" || fail "systemctl reload $unit failed" "libvirt does not see the change until it is reloaded"
            reloaded="$reloaded $unit"
        fi
    done
    if [ -z "$reloaded" ]; then
        for file in /run/libvirtd.pid /run/virtqemud.pid /run/libvirt/libvirtd.pid /run/libvirt/virtqemud.pid; do
            if hang_up "$file"; then reloaded="$reloaded $comm"; fi
        done
    fi
    if [ -n "$reloaded" ]; then
        say "changed reloaded$reloaded"
    else
        remark "note: no running libvirt found to reload; it finds the hook when it starts"
        remark "      (libvirt in a container: reload it there)"
    fi
}

check_python() {
    [ -x "$python" ] || fail "$python is missing" "install the package python3 (3.9 or later)"
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        fail "$python is older than 3.9" "emupin needs Python 3.9 or later there"
}

has_module() { "$python" -I -c "import $1" 2>/dev/null; }

remark_modules() {
    if [ -n "$staged$check" ]; then return; fi
    has_module yaml || remark "warning: PyYAML is missing: install python3-yaml (Debian, Ubuntu) or python3-pyyaml" \
        "(RHEL, Fedora), or write the policy as /etc/emupin/policy.json, which needs nothing"
    has_module libvirt || remark "warning: libvirt's Python module is missing: install python3-libvirt;" \
        "without it guests are placed, but the pin is not recorded in libvirt's own XML"
    has_module lxml || remark "note: lxml is missing (python3-lxml); only \`emupin rewrite --validate\` needs it"
}

remark_policy() {
    if [ -n "$staged$check" ]; then return; fi
    for file in /etc/emupin/policy.yaml /etc/emupin/policy.json; do
        if [ -e "$file" ]; then return; fi
    done
    remark "note: there is no policy yet, so the hook does nothing:" \
        "copy /etc/emupin/policy.yaml.example to /etc/emupin/policy.yaml and edit it"
}

# --- actions ----------------------------------------------------------------------------------------------------------

check_superuser() {
    if [ -n "$staged" ] || is_superuser; then return; fi
    fail "only root can do that" "run it with sudo, set DESTDIR, or look first: ./install.sh --demo"
}

install_all() {
    check_python
    choose_place
    launcher >"$work/launcher"
    library "$root$prefix/lib/emupin"
    put 0755 "$work/launcher" "$root$prefix/bin/emupin"
    directory 0755 "$root/etc/emupin"
    put 0644 "$here/fixtures/policy/example.yaml" "$root/etc/emupin/policy.yaml.example"
    directory 0700 "$root/var/lib/emupin"
    directory 0700 "$root/var/log/emupin"
    if [ -n "$staged" ] || [ -d /etc/logrotate.d ]; then
        put 0644 "$here/fixtures/logrotate/emupin" "$root/etc/logrotate.d/emupin" "$(logrotate_staging)"
    fi
    hook
}

logrotate_staging() { # beside logrotate.d, which logrotate reads whole; made only when something will be written
    if [ -z "$check" ]; then mkdir -p -- "$root/etc"; fi
    say "$root/etc"
}

remove_hooks() {
    hooks=$root/etc/libvirt/hooks
    before=$changes
    if is_ours "$hooks/qemu"; then remove "$hooks/qemu"; fi
    ours_in_folder "$hooks/qemu.d" >"$work/ours"
    while IFS= read -r file; do remove "$file"; done <"$work/ours"
    if [ "$changes" -ne "$before" ]; then
        hook_changed=yes
        remove_empty "$hooks/qemu.d"
    fi
}

remove_all() {
    remove_hooks
    reload # before the library goes: until then libvirt may still call the hook
    if grep -qxF "$launcher_marker" "$root$prefix/bin/emupin" 2>/dev/null; then remove "$root$prefix/bin/emupin"; fi
    remove "$root$prefix/lib/emupin/emupin" "$root/etc/emupin/policy.yaml.example" "$root/etc/logrotate.d/emupin"
    if [ -n "$staged" ]; then remove_empty "$root/etc/logrotate.d"; fi
    remove_empty "$root$prefix/lib/emupin" "$root/etc/emupin" "$root/var/lib/emupin" "$root/var/log/emupin"
    if [ "$changes" -eq 0 ]; then say "ok nothing of emupin is installed"; fi
    for path in "$root/etc/emupin" "$root/var/lib/emupin" "$root/var/log/emupin"; do
        if [ -d "$path" ]; then say "kept $path (policy and audit trail are yours)"; fi
    done
}

# --- demo -------------------------------------------------------------------------------------------------------------

demo_policy() { # JSON where PyYAML is missing: the demo works on any node
    if has_module yaml; then
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

prepare_demo() {
    staged=yes
    root=$work/node
    prefix=/usr/local
    lib=$root$prefix/lib/emupin
    mkdir -p "$root/sys/devices/system/cpu"
    echo 0-7 >"$root/sys/devices/system/cpu/online"
    install_all >"$work/steps"
    demo_policy >"$work/policy"
    put 0644 "$work/policy" "$root/etc/emupin/$policy" >"$work/steps"
}

run_demo_hook() {
    env -i LC_ALL=C PATH="$PATH" EMUPIN_ROOT="$root" \
        sh "$place" instance-0000002a prepare begin - <"$here/fixtures/xml/demo.xml" >"$work/after.xml" 2>"$work/errors" ||
        fail "the hook ended with status $?" "$(cat "$work/errors")"
}

demo_result() {
    "$python" -I - "$here/fixtures/xml/demo.xml" "$work/after.xml" "$root/var/log/emupin/audit.jsonl" <<'TEXT'
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

demo() {
    prepare_demo
    say "emupin demo, in a throw-away folder. Nothing on this machine changes."
    show "The policy:" <"$work/policy"
    run_demo_hook
    demo_result >"$work/result" || fail "the hook left no audit entry" "$(cat "$work/errors")"
    show "A guest with four vCPUs on CPUs 2-5. libvirt is about to start it and runs: hooks/qemu instance-0000002a prepare begin -" <"$work/result"
    cat <<'TEXT'

Next
  1. sudo ./install.sh                 on the node; without a policy it changes nothing
  2. sudoedit /etc/emupin/policy.yaml  start from policy.yaml.example beside it; `emupin policy check` reads it over
TEXT
}

main() {
    parse "$@"
    [ -f "$here/hooks/qemu" ] || fail "$here/hooks/qemu is missing" "run install.sh from a complete checkout"
    if [ "$action" != demo ]; then check_superuser; fi
    work=$(mktemp -d "${TMPDIR:-/tmp}/emupin-install.XXXXXX")
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    lib=$prefix/lib/emupin
    case $action in
    install)
        install_all
        label
        reload
        remark_modules
        remark_policy
        ;;
    uninstall) remove_all ;;
    demo) demo ;;
    esac
    if [ -n "$check" ] && [ "$changes" -gt 0 ]; then exit 1; fi
}

main "$@"
