"""The Debian package on a host with running guests: none of them notices its installation, upgrade or removal."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import suites

from .expect import FIRST, UNION, emulator_cpus, policy, recorded, start
from .guests import Guest
from .host import CHECKOUT, HOOKS, PrivateHost, eventually

TOOLS = ("dpkg-buildpackage", "dh", "dh_python3", "fakeroot")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of what is committed."""
    suites.need("a package", suites.missing(TOOLS))
    folder = tmp_path_factory.mktemp("package")
    done = subprocess.run([CHECKOUT / "packaging/build", "deb", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.strip())


def dpkg(host: PrivateHost, *words: str) -> str:
    """What dpkg says; libvirtd has looked for hooks again when it is back."""
    before = host.logged("/hooks/lxc")
    said = host.run("dpkg", *words).stdout
    assert "reloaded libvirtd" in said
    assert eventually(lambda: host.logged("/hooks/lxc") > before)
    return said


def processes(host: PrivateHost, *guests: Guest) -> list[tuple[int, set[frozenset[int]]]]:
    return [(host.pid(guest.name), emulator_cpus(host, guest)) for guest in guests]


def test_no_guest_notices_the_package(host: PrivateHost, package: Path) -> None:
    old, new, last = Guest("nfv-old"), Guest("nfv-new"), Guest("nfv-last")
    start(host, old)
    before = processes(host, old)

    dpkg(host, "--install", str(package))
    assert processes(host, old) == before == [(host.pid(old.name), {UNION})]
    host.set_policy(policy(checks="{foreign_overlap: warn}"))  # There are only a few CPUs here.
    start(host, new)
    assert emulator_cpus(host, new) == {FIRST}
    assert eventually(lambda: recorded(host, new))

    before = processes(host, old, new)
    dpkg(host, "--install", str(package))  # The same version: unpacked over what is there, as an upgrade is.
    assert processes(host, old, new) == before
    host.restart_libvirtd()
    assert emulator_cpus(host, new) == {FIRST}

    before = processes(host, old, new)
    said = dpkg(host, "--remove", "emupin")
    assert "pins that were recorded stay" in said
    assert processes(host, old, new) == before
    assert not host.path(f"{HOOKS}/qemu.d").exists()
    start(host, last)
    assert emulator_cpus(host, last) == {UNION}
    assert host.path("/etc/emupin/policy.yaml").exists()
