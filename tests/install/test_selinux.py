"""The optional SELinux module, compiled with the few types that it names; `pristine/` has Debian's whole policy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from selinuxmodule import BASE, MODULE, TYPES

RULES = (
    "(virtqemud_t virt_hook_t (file (getattr open map read execute)))",
    "(virtqemud_t virt_hook_unconfined_t (process (transition)))",
    "(virt_hook_unconfined_t virtqemud_t (fd (use)))",
    "(virt_hook_unconfined_t virtqemud_t (fifo_file (read write)))",
    "(virt_hook_unconfined_t virtqemud_t (process (sigchld)))",
)
NO_RULES = (
    "(virtqemud_t virt_hook_t (file (write)))",
    "(virtqemud_t virtqemud_t (process (transition)))",
)


def compiled(folder: Path, *texts: str) -> subprocess.CompletedProcess[str]:
    """By SELinux's own compiler."""
    if not shutil.which("secilc"):
        pytest.skip("secilc is missing; tests/run.sh installs it")
    files = [folder / f"{number}.cil" for number in range(len(texts))]
    for file, text in zip(files, texts):
        file.write_text(text)
    return subprocess.run(
        ["secilc", "-o", folder / "policy", "-f", "/dev/null", *files], capture_output=True, text=True, check=False
    )


FEDORA = BASE + TYPES.format(role="system_r")


def test_it_compiles_with_the_types_that_it_names(tmp_path: Path) -> None:
    done = compiled(tmp_path, FEDORA, MODULE.read_text())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rule", RULES)
def test_what_it_allows(tmp_path: Path, rule: str) -> None:
    """A policy that promises never to allow it is refused, and only with the module."""
    never = f"(neverallow {rule[1:]}"
    assert compiled(tmp_path, FEDORA, never).returncode == 0
    assert "neverallow" in compiled(tmp_path, FEDORA, never, MODULE.read_text()).stderr


@pytest.mark.parametrize("rule", NO_RULES)
def test_what_it_does_not_allow(tmp_path: Path, rule: str) -> None:
    done = compiled(tmp_path, FEDORA, f"(neverallow {rule[1:]}", MODULE.read_text())
    assert done.returncode == 0, done.stderr


def test_it_is_refused_where_the_types_are_missing(tmp_path: Path) -> None:
    """As on RHEL 8 and 9: nothing is loaded that does nothing."""
    assert compiled(tmp_path, BASE, MODULE.read_text()).returncode
