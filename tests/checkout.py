"""The files of the project."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MADE = {
    "__pycache__",
    ".git",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "build",
    "dist",
}
"""Folders that tools make."""


def files() -> list[Path]:
    """Every file of the project: what git tracks or would track; without git, what is not hidden or made by a tool."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, check=False,
    )  # fmt: skip
    names = [CHECKOUT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [path for path in names or _walked() if path.is_file() and not path.is_symlink()]


def _walked() -> list[Path]:
    return [path for path in CHECKOUT.rglob("*") if not MADE.intersection(path.relative_to(CHECKOUT).parts)]
