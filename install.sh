#!/bin/sh
# Installs emupin on a node, removes it again, or shows it at work without installing anything: see --help.
set -eu
here=$(unset CDPATH && cd -- "$(dirname -- "$0")" && pwd -P)
if [ ! -f "$here/packaging/place-hook" ]; then
    printf 'install.sh: %s is missing\n  run install.sh from a complete checkout\n' "$here/packaging/place-hook" >&2
    exit 1
fi
# shellcheck source=packaging/place-hook
. "$here/packaging/place-hook"

python=/usr/bin/python3
launcher_marker="# emupin: starts the command line from the library below this prefix"
action=install # install | uninstall
undo=          # yes: take the recorded pins back before
prefix=/usr/local

usage() {
    cat <<'TEXT'
Usage: ./install.sh [--check] [--prefix DIR] [--hook PLACE]
       ./install.sh --uninstall [--check] [--undo] [--prefix DIR]
       ./install.sh --demo

Installs the hook (/etc/libvirt/hooks/qemu, or qemu.d/50-emupin where hooks/qemu belongs to somebody else), the library
and the command `emupin`. Needs /usr/bin/python3, 3.9 or later; no network. A second run changes nothing.

  --check        print what would change, change nothing; status 1 if something would, 2 if it cannot be installed
  --prefix DIR   where bin/, lib/ and share/ go (default /usr/local)
  --hook PLACE   auto: as described above; qemu.d: qemu.d/50-emupin in any case (libvirt 6.5.0 or later); later: in
                 share/emupin/ only, where `place-hook install` finds it: for packages and images (default: auto)
  --uninstall    remove what was installed; policy and audit trail stay
  --undo         before that, take the pins back that emupin recorded in libvirt's definitions
  --demo         show the hook at work on an example guest in a throw-away folder; needs no root
  --help         this text

Environment
  DESTDIR          put everything below this folder (for packages and images): nothing is compiled, libvirt not reloaded
  LIBVIRT_VERSION  libvirt's version where it cannot be asked (libvirt in a container, DESTDIR): 9.0.0
TEXT
}

misused() {
    remark "install.sh: $1"
    remark "  ./install.sh --help lists what is allowed"
    exit 2
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --check) check=yes ;;
        --uninstall) action=uninstall ;;
        --undo) undo=yes ;;
        --demo) exec sh "$here/examples/demo.sh" ;;
        --prefix=* | --hook=*) set_option "${1%%=*}" "${1#*=}" ;;
        --prefix | --hook)
            if [ $# -lt 2 ]; then misused "$1 needs a value"; fi
            set_option "$1" "$2"
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
    if [ -n "$undo" ] && [ "$action" != uninstall ]; then misused '--undo goes with --uninstall'; fi
    case $root in '' | /*) ;; *) root=$PWD/$root ;; esac
    while [ "${root%/}" != "$root" ]; do root=${root%/}; done
}

set_option() { # set_option NAME VALUE
    case $1=$2 in
    *'
'*) misused "$1 must be one line" ;;
    --prefix=/*) prefix=$2 ;;
    --hook=auto | --hook=qemu.d | --hook=later) where=$2 ;;
    --prefix=*) misused "--prefix must start with /: $2" ;;
    *) misused "--hook is auto, qemu.d or later, not $2" ;;
    esac
    while [ "${prefix%/}" != "$prefix" ]; do prefix=${prefix%/}; done
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

# --- the library ------------------------------------------------------------------------------------------------------

modules() { # modules FOLDER: what belongs into an installed library, one a line
    (cd "$1" && find emupin -type f \( -name '*.py' -o -name py.typed -o -name '*.html' -o -name '*.css' -o -name '*.js' \) \
        ! -name '.*' | sort)
}

installed_modules() {
    (cd "$1" && find emupin ! -type d ! -path '*/__pycache__/*' | sort)
}

digests() { # digests FOLDER: of the files there that stdin names; by one process, not one for each
    (cd "$1" && xargs sha256sum 2>&1)
}

is_compiled() { # is_compiled FOLDER: every module has byte code that this node's Python takes without recompiling
    if [ -n "$staged" ]; then return; fi
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
    [ "$(modules "$here/src" | digests "$here/src")" = "$(installed_modules "$1" | digests "$1")" ] || return 1
    ! has_wrong_modes "$1/emupin" && is_compiled "$1/emupin"
}

copy() { # copy FOLDER TARGET: the files there that stdin names, with the modes of new ones
    "$python" -I -c 'import os, shutil, sys
for name in sys.stdin.read().splitlines():
    source, target = (os.path.join(folder, name) for folder in sys.argv[1:])
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)' "$1" "$2"
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
    modules "$here/src" | copy "$here/src" "$stage"
    if [ -z "$staged" ]; then
        compile "$stage/emupin" -s "$stage" -p "$lib" ||
            fail "$python cannot compile $here/src/emupin" "is the checkout complete? get a fresh one and try again"
    fi
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

# --- the other files --------------------------------------------------------------------------------------------------

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

escaped() { # escaped TEXT: as a single-quoted shell word, made safe for the right side of sed's s|…|…|
    printf '%s\n' "$1" | sed "s/'/'\\\\''/g; s/[&|\\\\]/\\\\&/g"
}

hook_file() {
    grep -q '^lib=' "$here/hooks/qemu" || fail "$here/hooks/qemu has no line lib=" "get a fresh checkout"
    sed "s|^lib=.*|lib='$(escaped "$lib")'|" "$here/hooks/qemu"
}

manual() { # what --help says, as a page
    "$python" -I -B "$here/packaging/manual.py" || fail "$here/packaging/manual.py failed" "get a fresh checkout"
}

listed() { # listed: MODE SOURCE TARGET of each file of the list that this machine has a use for
    sed '/^#/d; /^$/d' "$here/packaging/files" | while read -r mode source target; do
        case $target in
        /etc/logrotate.d/*) if [ -z "$staged" ] && [ ! -d /etc/logrotate.d ]; then continue; fi ;;
        esac
        case $target in /*) say "$mode $source $root$target" ;; *) say "$mode $source $root$prefix/$target" ;; esac
    done
}

has_systemd() { # systemd runs this machine, and udev beside it; a staging is for machines where they do
    [ -n "$staged" ] || { [ -d /run/systemd/system ] && command -v udevadm >/dev/null; }
}

drift_places() { # sets service and rules: what brings guests in line after a CPU change, where systemd and udev look
    case $prefix in
    /usr | /usr/local)
        service=$root$prefix/lib/systemd/system/emupin-drift.service
        rules=$root$prefix/lib/udev/rules.d/60-emupin.rules
        ;;
    *)
        service=$root/etc/systemd/system/emupin-drift.service
        rules=$root/etc/udev/rules.d/60-emupin.rules
        ;;
    esac
}

drift_service() { # to systemd a % is the start of something
    sed "s|^ExecStart=\"/usr/local/bin/|ExecStart=\"$(printf '%s\n' "$prefix" | sed 's/%/%%/g; s/[&|\\]/\\&/g')/bin/|" \
        "$here/packaging/emupin-drift.service"
}

is_mask() { [ -h "$1" ] && [ "$(readlink -- "$1")" = /dev/null ]; } # it is turned off there, and stays so

put_unit() { # put_unit NEW TARGET
    if is_mask "$2"; then say "kept $2 (turned off)"; else put 0644 "$1" "$2"; fi
}

remove_unit() { if ! is_mask "$1"; then remove "$1"; fi; }

prepare() { # the files that are made here
    drift_service >"$work/service"
    launcher >"$work/launcher"
    hook_file >"$work/hook"
    manual >"$work/emupin.8"
    listed >"$work/listed"
}

# --- actions ----------------------------------------------------------------------------------------------------------

install_all() {
    check_python
    prepare
    if [ "$where" != later ]; then choose_place; fi
    library "$root$lib"
    put 0755 "$work/launcher" "$root$prefix/bin/emupin"
    put 0755 "$work/hook" "$root$prefix/share/emupin/hook"
    put 0644 "$work/emupin.8" "$root$prefix/share/man/man8/emupin.8"
    directory 0755 "$root/etc/emupin"
    while read -r mode source target; do
        case $target in
        */logrotate.d/*) put "$mode" "$here/$source" "$target" "$root/etc" ;; # logrotate reads its folder whole
        *) put "$mode" "$here/$source" "$target" ;;
        esac
    done <"$work/listed"
    drift_places
    if has_systemd; then
        # No daemon-reload: systemd finds a new unit by itself, and a reload would move the threads of guests.
        put_unit "$work/service" "$service"
        put_unit "$here/packaging/60-emupin.rules" "$rules"
    fi
    directory 0700 "$root/var/lib/emupin"
    directory 0700 "$root/var/log/emupin"
    if [ "$where" != later ]; then put_hook "$work/hook"; fi
    if [ "$changes" -gt 0 ]; then label /etc/libvirt/hooks /etc/emupin /var/lib/emupin /var/log/emupin "$prefix/bin/emupin" "$lib"; fi
    reload
}

remove_all() {
    find_other
    take_pins_back
    listed >"$work/listed"
    remove_hook
    reload # before the library goes: until then libvirt may still call the hook
    if grep -qxF "$launcher_marker" "$root$prefix/bin/emupin" 2>/dev/null; then remove "$root$prefix/bin/emupin"; fi
    if [ -z "$other" ]; then end_metrics; fi
    while read -r _ _ target; do
        case $other:$target in ?*:"$root"/etc/*) ;; *) remove "$target" ;; esac
    done <"$work/listed"
    drift_places
    if ! exists "$service" || is_mask "$service" || grep -qxF "$(drift_service | grep '^ExecStart=')" "$service"; then
        remove_unit "$service"
        remove_unit "$rules"
    fi
    remove "$root$prefix/share/man/man8/emupin.8" "$root$prefix/share/emupin" "$root$lib/emupin"
    remove_empty "$root$lib"
    if [ -z "$other" ]; then
        remove "$root/run/emupin"
        if [ -n "$staged" ]; then remove_empty "$root/etc/logrotate.d"; fi
        remove_empty "$root/etc/emupin" "$root/var/lib/emupin" "$root/var/log/emupin"
    fi
    say_what_stays
}

emupin() { # the command, from this checkout: that of an installation may be gone
    "$python" -I -B -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
from emupin.cli import main
sys.exit(main())' "$here/src" "$@"
}

take_pins_back() {
    if [ -z "$undo" ] || [ -n "$staged$other" ]; then return; fi
    status=0
    if [ -z "$check" ]; then
        emupin apply --undo --all --yes || status=$?
    else
        emupin apply --undo --all --json >/dev/null || status=$?
    fi
    case $status in
    0) ;;
    1) due "the pins recorded in libvirt's definitions (emupin apply --undo --all shows them)" || : ;;
    *) fail "the recorded pins could not be taken back" "see above; without --undo they stay as they are" ;;
    esac
}

say_what_stays() {
    if [ "$changes" -eq 0 ]; then say "ok nothing of emupin is installed below $prefix"; fi
    if [ -n "$other" ]; then
        say "kept what all copies share, recorded pins too: $other is another copy's, which stays"
        return
    fi
    for path in "$root/etc/emupin" "$root/var/lib/emupin" "$root/var/log/emupin"; do
        if [ -d "$path" ]; then say "kept $path (policy and audit trail are yours)"; fi
    done
    if [ "$changes" -gt 0 ] && [ -z "$staged$undo" ]; then
        say "kept the pins recorded in libvirt's definitions (./install.sh --uninstall --undo takes them back)"
    fi
}

check_superuser() {
    if [ -n "$staged" ] || is_superuser; then return; fi
    fail "only root can do that" "run it with sudo, set DESTDIR, or look first: ./install.sh --demo"
}

check_python() {
    [ -x "$python" ] || fail "$python is missing" "install the package python3 (3.9 or later)"
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        fail "$python is older than 3.9" "emupin needs Python 3.9 or later there"
    "$python" -I -c 'import difflib, json' 2>/dev/null ||
        fail "$python lacks parts of the standard library: it is python3-minimal alone" "install the package python3"
}

has_module() { "$python" -I -c "import $1" 2>/dev/null; }

remark_modules() {
    has_module yaml || remark "warning: PyYAML is missing: install python3-yaml (Debian, Ubuntu) or python3-pyyaml" \
        "(RHEL, Fedora), or write the policy as /etc/emupin/policy.json, which needs nothing"
    has_module libvirt || remark "warning: libvirt's Python module is missing: install python3-libvirt;" \
        "without it guests are placed, but the pin is not recorded in libvirt's own XML"
    has_module lxml || remark "note: lxml is missing (python3-lxml); only \`emupin rewrite --validate\` needs it"
}

remark_policy() {
    for file in /etc/emupin/policy.yaml /etc/emupin/policy.json; do
        if [ -e "$file" ]; then return; fi
    done
    remark "note: there is no policy yet, so the hook does nothing:" \
        "copy /etc/emupin/policy.yaml.example to /etc/emupin/policy.yaml and edit it"
}

main() {
    parse "$@"
    lib=$prefix/lib/emupin
    [ -f "$here/hooks/qemu" ] || fail "$here/hooks/qemu is missing" "run install.sh from a complete checkout"
    check_superuser
    make_work
    if [ "$action" = uninstall ]; then
        remove_all
    else
        install_all
        if [ -z "$staged$check" ]; then
            remark_modules
            remark_policy
        fi
    fi
    if [ -n "$check" ] && [ "$changes" -gt 0 ]; then exit 1; fi
}

main "$@"
