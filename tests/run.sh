#!/bin/sh
# Runs the tests, after all the set-up they need: packages (as root on Debian or Ubuntu), a virtual environment, then pytest.
# Without arguments it runs what takes minutes, and says at the end how to run the rest; with CI set, the rest too.
# Arguments go to pytest: tests/run.sh tests/guest/test_domain.py -k comments
set -eu
cd -- "$(dirname -- "$0")/.."

python=/usr/bin/python3 # the distribution's: libvirt's Python module is there and nowhere else
packages="python3 python3-venv python3-libvirt python3-lxml python3-yaml python3-jinja2 git patch
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 chromium iproute2 procps shellcheck
    logrotate sysstat"
more="secilc debhelper dh-python fakeroot lintian rpm rpmlint groff mandoc zsh fish python3-argcomplete"
# The tests that need one of these are skipped where the release has no such package.
apart="tests/install tests/real tests/microvm tests/host tests/pristine" # not in the first, fast run

fail() {
    printf 'tests/run.sh: %s\n' "$1" >&2
    shift
    for line; do printf '  %s\n' "$line" >&2; done
    exit 1
}

in_ci() { [ -n "${CI-}" ] && [ "$CI" != false ]; }

add_packages() { # what the suites need that build packages or make whole systems
    suites="$* $(if in_ci; then echo tests/install tests/host; fi)"
    case $suites in
    *tests/install* | *tests/host* | *tests/pristine*) ;;
    *) more= ;;
    esac
    case $suites in
    *tests/host* | *tests/pristine*) packages="$packages debootstrap e2fsprogs qemu-utils" ;;
    esac
}

missing_packages() { # missing_packages PACKAGES
    for package in $1; do
        state=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) || state=
        if [ "$state" != installed ]; then printf '%s ' "$package"; fi
    done
}

has_candidate() { apt-cache policy "$1" | grep --quiet '^  Candidate: [^(]'; }

install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "tests/run.sh: not Debian or Ubuntu: using what is installed" >&2
        return
    fi
    missing=$(missing_packages "$packages $more")
    if [ -z "$missing" ]; then return; fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "tests/run.sh: not root, so not installed: $missing" >&2
        return
    fi
    echo "tests/run.sh: installing $missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet --quiet >&2 || fail "apt-get update failed" "needed: $missing"
    missing=$(missing_packages "$packages")
    for package in $(missing_packages "$more"); do
        if in_ci || has_candidate "$package"; then missing="$missing $package"; fi
    done
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
import os

in_ci = os.environ.get("CI", "false") not in ("", "false")
config = configparser.ConfigParser()
config.read("setup.cfg")
extras = config["options.extras_require"]
for name in extras["test"].split() + (extras["deploy"].split() if in_ci else []):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(name)
TEXT
    )
    if [ -z "$wanted" ]; then return; fi
    # shellcheck disable=SC2086 # a list of words
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --retries 1 $wanted ||
        use_packaged "$(printf '%s ' $wanted)"
}

use_packaged() { # use_packaged MODULES: Debian has the test runner, too; the linters are skipped then
    if ! in_ci && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "tests/run.sh: no package index: testing with the distribution's pytest, without linters" >&2
        packages="python3-pytest python3-pytest-xdist python3-hypothesis python3-typing-extensions" more=
        install_packages
    fi
    if in_ci || ! .venv/bin/python -c 'import hypothesis, pytest'; then
        fail "pip could not install some of: $1" \
            "is the package index reachable from here? pip reads its address and proxy from pip.conf and the environment"
    fi
}

run_pytest() { .venv/bin/python -m pytest "$@"; }

on_all_cpus() { # options for a suite whose files disturb each other as little as two users of a machine do
    if .venv/bin/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("xdist"))'; then
        echo --numprocesses auto --dist loadfile
    fi
}

suite() { # suite ARGUMENT…: a failure does not keep the others from running
    run_pytest -q "$@" || failed="$failed $1"
}

add_packages "$@"
install_packages
check_ci
make_environment
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
if [ $# -gt 0 ]; then
    run_pytest "$@"
    exit
fi
failed=
# shellcheck disable=SC2046,SC2086 # lists of words
suite tests $(on_all_cpus) $(printf -- '--ignore %s ' $apart)
suite tests/real
if in_ci; then
    # shellcheck disable=SC2046 # a list of words
    suite tests/install $(on_all_cpus)
    suite tests/microvm
    suite tests/host
else
    cat <<'TEXT'
tests/run.sh: not run, because each takes longer:
  tests/run.sh tests/install     packages, install.sh and the Ansible role, in throw-away roots (four minutes)
  tests/run.sh tests/microvm     two kernels with cgroup v2, in micro VMs (ten minutes)
  tests/run.sh tests/host        Debian 12 and 13 with systemd and AppArmor, under QEMU (half an hour)
TEXT
fi
echo "tests/run.sh: \`tests/run.sh tests/pristine\` takes an hour: the tests on pristine Debian 11, 12, 13 and unstable"
if [ -n "$failed" ]; then
    fail "failed:$failed" "their messages are above"
fi
