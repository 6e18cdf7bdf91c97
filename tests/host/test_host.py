"""Debian 12 and 13 as they are: systemd, machined, AppArmor, libvirt 9.0 and 11.3, cgroup v2, two NUMA nodes, a reboot.

Each test is a check that ran inside; see `inside/first.py` and `inside/second.py` for what it does.
"""

from __future__ import annotations

import pytest

from .inside.all import CHECKS
from .inside.kit import ONLY
from .machine import Seen

NAMES = [check.__name__ for checks in CHECKS.values() for check in checks]


@pytest.mark.parametrize("name", NAMES)
def test_real_host(seen: Seen, release: str, name: str) -> None:
    if ONLY.get(name, release) != release:
        pytest.skip(f"is about Debian {ONLY[name]}")
    result = seen.results.get(name)
    if result is None:
        pytest.fail(f"never reached; the consoles:\n{seen.console}", pytrace=False)
    if not result["passed"]:
        pytest.fail(f"after {result['seconds']} s:\n{result['said']}", pytrace=False)
