#!/bin/sh
# Runs every test, after all the set-up they need: packages (as root on Debian or Ubuntu), a virtual environment, then pytest.
# Arguments go to pytest: tests/run.sh tests/test_domain.py -k comments
set -eu
cd -- "$(dirname -- "$0")/.."

python=/usr/bin/python3 # the distribution's: libvirt's Python module is there and nowhere else
packages="libvirt-daemon libvirt-clients qemu-system-x86 python3-libvirt python3-lxml python3-yaml python3-venv
    python3-jinja2 chromium iproute2 procps shellcheck logrotate sysstat
    debhelper dh-python fakeroot lintian rpm rpmlint groff mandoc zsh fish python3-argcomplete"

fail() {
    printf 'tests/run.sh: %s\n' "$1" >&2
    shift
    for line; do printf '  %s\n' "$line" >&2; done
    exit 1
}

in_ci() { [ -n "${CI-}" ] && [ "$CI" != false ]; }

missing_packages() {
    for package in $packages; do
        state=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) || state=
        if [ "$state" != installed ]; then printf '%s ' "$package"; fi
    done
}

install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "tests/run.sh: not Debian or Ubuntu: using what is installed" >&2
        return
    fi
    missing=$(missing_packages)
    if [ -z "$missing" ]; then return; fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "tests/run.sh: not root, so not installed: $missing" >&2
        return
    fi
    echo "tests/run.sh: installing $missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet --quiet >&2 || fail "apt-get update failed" "needed: $missing"
    # shellcheck disable=SC2086 # a list of words
    apt-get install --quiet --quiet --yes --no-install-recommends $missing >&2 ||
        fail "apt-get could not install $missing" "see its messages above: is the package mirror reachable?"
}

check_ci() { # where nobody reads remarks, nothing may be skipped
    in_ci || return 0
    [ "$(id -u)" -eq 0 ] || fail "CI is set, and the tests with a real libvirt need root" "run it as root, or unset CI"
    command -v libvirtd >/dev/null || fail "CI is set, and libvirtd is missing" "install: $packages"
    "$python" -c 'import libvirt' || fail "CI is set, and $python has no libvirt module" "install python3-libvirt"
}

make_environment() {
    if ! .venv/bin/python -c '' 2>/dev/null; then
        "$python" -m venv --clear --system-site-packages .venv ||
            fail "$python cannot make a virtual environment" "install python3-venv, then try again"
    fi
    wanted=$(.venv/bin/python - <<'TEXT'
import configparser
import importlib.metadata

config = configparser.ConfigParser()
config.read("setup.cfg")
for name in config["options.extras_require"]["test"].split():
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(name)
TEXT
    )
    if [ -z "$wanted" ]; then return; fi
    # shellcheck disable=SC2086 # a list of words
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input $wanted ||
        fail "pip could not install some of: $(printf '%s ' $wanted)" \
            "is the package index reachable from here? pip reads its address and proxy from pip.conf and the environment"
}

run_pytest() { .venv/bin/python -m pytest "$@"; }

install_packages
check_ci
make_environment
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
if [ $# -gt 0 ]; then
    run_pytest "$@"
    exit
fi
run_pytest tests --ignore tests/real --ignore tests/microvm -q || exit
if [ -d tests/real ]; then
    run_pytest tests/real -q || exit
fi
if in_ci; then # two minutes on two cores: elsewhere on demand, tests/run.sh -m microvm
    run_pytest tests/microvm -q
fi
