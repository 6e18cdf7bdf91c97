"""Fixtures of the tests against a real libvirtd, and what they need of the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import suites

from .cgroups import native_version
from .guests import CPUS
from .host import PrivateHost

HERE = Path(__file__).parent
PROGRAMS = ("libvirtd", "virsh", "qemu-system-x86_64", "nsenter", "unshare", "ip", "mount")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: starts guests under a real libvirtd, in namespaces of its own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    suites.mark(items, HERE)


def pytest_runtest_setup() -> None:
    suites.need("a private host", missing())


def missing() -> str:
    """What this machine lacks for a private host; empty if nothing."""
    return suites.lacking(PROGRAMS, "namespaces and cgroups") or ("" if len(CPUS) > 1 else "two CPUs")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrivateHost]:
    """A host with cgroups, as most have; without guests, hook or policy."""
    yield from _host(tmp_path, native_version())


@pytest.fixture
def no_cgroup(tmp_path: Path) -> Iterator[PrivateHost]:
    """A host where libvirt finds no cgroup at all."""
    yield from _host(tmp_path, "none")


@pytest.fixture(params=("cpuset", "no-cgroup"))
def each_host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PrivateHost]:
    """A host with the cpuset controller, and one where libvirt finds no cgroup at all."""
    yield from _host(tmp_path, native_version() if request.param == "cpuset" else "none")


def _host(folder: Path, cgroup: str) -> Iterator[PrivateHost]:
    with PrivateHost(folder, "host-a", cgroup) as host:
        yield host
        print(*host.syslog(), sep="\n")  # pytest shows it where the test failed
        decided_again(host)


def decided_again(host: PrivateHost) -> None:
    """Whatever a test did to the host: each decision in its trail, made again from the trail alone, is the same."""
    trail = host.path("/var/log/emupin/audit.jsonl")
    if not trail.exists():
        return
    replay = ["audit", "replay", "--json", "--state", str(host.path("/var/lib/emupin")), str(trail)]
    done = subprocess.run(
        [sys.executable, "-m", "emupin", *replay],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[1] / "src",
    )
    assert done.returncode == 0, done.stdout + done.stderr
