"""Every check, by boot and in order: that of the imports."""

from __future__ import annotations

from host.inside import first

from host.inside import changes  # isort: skip
from host.inside import upgrade  # isort: skip
from host.inside import second  # isort: skip
from host.inside import migration  # isort: skip
from host.inside import packages  # isort: skip
from host.inside.kit import CHECKS

__all__ = ["CHECKS", "changes", "first", "migration", "packages", "second", "upgrade"]
