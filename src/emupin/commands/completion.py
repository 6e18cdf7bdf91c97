"""What a shell completes: argcomplete asks the parser itself, and guests' names come from libvirt's files.

A shell sets _ARGCOMPLETE when Tab is pressed; nothing of this is loaded otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from emupin.base.files import root_from_environment
from emupin.node.guestfiles import FOLDERS, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end; without argcomplete there is nothing to answer. Raises SystemExit."""
    try:
        import argcomplete
    except ImportError:
        sys.exit()
    for action in _actions(parser):
        words = (action.metavar or "").split("|") if isinstance(action.metavar, str) else []
        if "GUEST" in words or "UUID" in words:
            action.completer = _guests_or_files if "FILE" in words else guests  # type: ignore[attr-defined]
        elif words and not {"FILE", "FOLDER", "OLD"}.intersection(words):
            action.completer = lambda **_facts: []  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the command and of what is below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        elif action.option_strings or action.metavar:
            yield action


def guests(**_facts: object) -> list[str]:
    """The names of the guests that run or are defined. Who may not look gets none: a Tab has no place for an error."""
    names: set[str] = set()
    for folder in FOLDERS:
        try:
            found = os.listdir(root_from_environment() + folder)
        except OSError:
            continue
        names.update(name[: -len(SUFFIX)] for name in found if name.endswith(SUFFIX) and name.isprintable())
    return sorted(names)


def _guests_or_files(prefix: str, **facts: object) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return [*guests(), *FilesCompleter()(prefix, **facts)]
