"""Debian 11 (Python 3.9), 12 (3.11), 13 (3.13) and unstable as debootstrap makes them: what a newcomer's machine is."""

from __future__ import annotations

import json
import re

from checkout import CHECKOUT
from selinuxmodule import MODULE, TYPES

from .conftest import CLONE, Root

APART = ("install", "real", "microvm", "host", "pristine")
FAST = ("tests", "-q", "--numprocesses=auto", "--dist=loadfile", *(f"--ignore=tests/{name}" for name in APART))
"""The first of the suites that `tests/run.sh` runs."""
WHOLE = ("bookworm", "trixie")
"""Where the tests with a real libvirt run, too."""
POLICY = {"version": 1, "rules": [{"name": "all", "match": {}, "placement": "vcpu:0"}]}
NOWHERE = "http://127.0.0.1:9/"


def test_the_tests_pass_with_nothing_but_what_they_install(root: Root) -> None:
    said = root.must_run("tests/run.sh", *(() if root.suite in WHOLE else FAST))
    assert re.search(r"\d passed", said)
    assert not re.search(r"\d (failed|error)", said)  # A package may complain: "reload" failed.


def test_without_a_package_index_the_distributions_pytest_serves(bookworm: Root) -> None:
    """Over http, and with retries and certificates out of the way, so that pip gives up at once."""
    said = bookworm.must_run("tests/run.sh", "tests/base", "tests/test_linters.py", "-q", PIP_INDEX_URL=NOWHERE)
    assert "without linters" in said
    assert " passed" in said


def test_python3_minimal_is_named_before_anything_is_installed(root: Root) -> None:
    root.install("python3-minimal")
    for argument in ("--demo", "--check", "--prefix=/usr/local"):
        done = root.run("./install.sh", argument)
        assert done.returncode, done.stdout
        assert "python3-minimal" in done.stdout
        assert "Traceback" not in done.stdout
    assert not (root.path / "usr/local/bin/emupin").exists()


def test_the_hook_and_the_command_line_work(root: Root) -> None:
    root.install("python3 python3-yaml")
    assert "<emulatorpin" in root.must_run("./install.sh", "--demo")
    root.must_run("./install.sh")
    assert root.must_run("emupin", "--version").startswith("emupin ")
    root.must_run("emupin", "policy", "check", "/etc/emupin/policy.yaml.example")
    (root.path / "etc/emupin/policy.json").write_text(json.dumps(POLICY))
    guest = (root.path / "srv/emupin/fixtures/xml/demo.xml").read_text()
    for cpu, here in (("2", "0"), ("3", "1"), ("4", "1"), ("5", "1")):  # The smallest machine has two.
        guest = guest.replace(f'cpuset="{cpu}"', f'cpuset="{here}"')
    said = root.must_run("/etc/libvirt/hooks/qemu", "demo", "restore", "begin", "-", input=guest)
    assert '<emulatorpin cpuset="0"/>' in said
    root.must_run("emupin", "audit", "verify")


def test_the_selinux_module_goes_into_debians_policy(bookworm: Root) -> None:
    """With the few types that only Fedora's has. Nothing is loaded: this machine's kernel need not know SELinux."""
    bookworm.install("selinux-policy-default policycoreutils setools")
    (bookworm.path / "srv/types.cil").write_text(TYPES.format(role="system_r"))
    module = f"{CLONE}/{MODULE.relative_to(CHECKOUT)}"
    bookworm.must_run("semodule", "--noreload", "--install", "/srv/types.cil", "--install", module)
    bookworm.must_run("semodule", "--noreload", "--list-modules=full")
    look = 'exec sesearch "$@" /etc/selinux/default/policy/policy.*'
    said = bookworm.must_run("sh", "-c", look, "sh", "--type_trans", "--source", "virtqemud_t")
    assert (
        "type_transition virtqemud_t virt_hook_t:process virt_hook_unconfined_t; [ virt_hooks_unconfined ]:True" in said
    )
