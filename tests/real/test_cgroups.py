"""The cgroups of the private hosts themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import cgroups

TESTS = Path(__file__).resolve().parents[1]
MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
from real import cgroups
print(*cgroups.make("twin", cgroups.native_version()), flush=True)
sys.stdin.read()
"""
RUN = ("unshare", "--pid", "--fork", "--mount", "--mount-proc", sys.executable, "-c", MAKE, str(TESTS))
"""A run whose process has the same id as that of every other."""


def test_two_runs_in_pid_namespaces_of_their_own_leave_each_other_alone() -> None:
    runs = [subprocess.Popen(RUN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [Path(path) for run in runs if run.stdout for path in run.stdout.readline().split()]
    try:
        assert made
        assert len(set(made)) == len(made)
        assert [path for path in made if not path.is_dir()] == []
    finally:
        for run in runs:
            run.communicate()
        for path in made:
            cgroups.remove(path)
