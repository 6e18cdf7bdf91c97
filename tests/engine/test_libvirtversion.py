"""Which libvirt a host has, from its library alone, and what follows from the version."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trees

from emupin.engine import host, libvirtversion, topology
from emupin.engine.hostcache import read_cached

LIBRARY = "usr/lib64/libvirt.so.0"


def library(root: Path, line: str) -> None:
    trees.write(root, LIBRARY, f"\0\0ELF\0{line}\0libvirtd\0")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("libvirt version: 9.0.0, package: 9.0.0-4+deb12u2 (Debian)", "9.0.0 9.0.0-4+deb12u2"),
        ("libvirt version: 9.0.0, package: 10.1.el9_2 (Red Hat, Inc. <http://bug>, 2023-04-14)", "9.0.0 10.1.el9_2"),
        ("libvirt version: 11.3.0", "11.3.0"),
        ("something else", ""),
    ],
)
def test_the_library_says_which_version_it_is(tmp_path: Path, line: str, version: str) -> None:
    trees.build(tmp_path, host.Host(frozenset((0,)), nodes={0: frozenset((0,))}))
    assert topology.read(str(tmp_path)).libvirt == ""
    library(tmp_path, line)
    assert topology.read(str(tmp_path)).libvirt == version


def test_an_upgrade_is_seen_past_the_cache(tmp_path: Path) -> None:
    trees.build(tmp_path, host.Host(frozenset((0,))))
    library(tmp_path, "libvirt version: 9.0.0")
    assert read_cached(str(tmp_path)).libvirt == "9.0.0"
    library(tmp_path, "libvirt version: 10.0.0")
    assert read_cached(str(tmp_path)).libvirt == "10.0.0"


def test_it_is_the_version_that_the_daemon_itself_says() -> None:
    try:
        done = subprocess.run(["/usr/sbin/libvirtd", "--version"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no libvirtd here")
    assert libvirtversion.read("").partition(" ")[0] == done.stdout.split()[-1]


@pytest.mark.parametrize(
    ("version", "whole"),
    [
        ("", False),
        ("8.0.0 1ubuntu7", False),
        ("9.0.0 9.0.0-4+deb12u2", True),
        ("9.0.0 10.el9", True),
        ("9.0.0 10.1.el9_2", False),
        ("9.0.0 10.3.el9_2", False),
        ("9.1.0", True),
        ("9.2.0", False),
        ("11.3.0 11.3.0-3", False),
        ("nonsense", False),
    ],
)
def test_which_versions_give_a_thread_context_that_a_pin_can_break(version: str, whole: bool) -> None:
    assert libvirtversion.has_whole_thread_context(version) is whole
