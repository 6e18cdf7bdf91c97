#!/usr/bin/python3
"""Print emupin(8): the commands as `--help` tells of them, between the texts of emupin.8.head and emupin.8.tail.

install.sh calls it, so a page always tells of the commands that it was installed with.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

PACKAGING = Path(__file__).resolve().parent
sys.path.insert(0, str(PACKAGING.parent / "src"))

from emupin import __version__  # noqa: E402
from emupin.cli import parser  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

NEVER_WRAPPED = 10_000


def escape(text: str) -> str:
    """A text of ours, `code` in bold; no line of it is taken for a request."""
    text = re.sub(r"`([^`\n]+)`", r"\\fB\1\\fP", text.replace("\\", "\\e").replace("-", "\\-"))
    text = "".join(character if character.isascii() else f"\\[u{ord(character):04X}]" for character in text)
    return re.sub(r"^(['.])", r"\\&\1", text, flags=re.MULTILINE)


def commands(of: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Every command that does something, those below others in their place, with its one line of help."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                below = list(commands(inner))
                yield from below or [(inner, summaries[name])]


def section(command: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    yield f".SS {escape(command.prog)}"
    yield from usage(command)
    what = command.description or summary[:1].upper() + summary[1:] + "."
    yield from paragraphs(what)
    for action in command._actions:
        if action.help and action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
            yield from option(command, action)
    yield from paragraphs(command.epilog or "")


def usage(command: argparse.ArgumentParser) -> Iterator[str]:
    formatter = argparse.HelpFormatter(command.prog, width=NEVER_WRAPPED)
    formatter.add_usage(None, command._actions, command._mutually_exclusive_groups, prefix="")
    line = formatter.format_help().strip().replace("[-h] ", "")
    yield ".PP"
    yield f"\\fB{escape(command.prog)}\\fP{escape(line[len(command.prog) :])}"


def option(command: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    formatter = argparse.HelpFormatter(command.prog, width=NEVER_WRAPPED)
    yield ".TP"
    yield f".B {escape(formatter._format_action_invocation(action))}"
    yield escape(formatter._expand_help(action))


def paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph and any(line.startswith(" ") for line in paragraph.splitlines()):
            yield from (".PP", ".nf", escape(paragraph), ".fi")
        elif paragraph:
            yield from (".PP", escape(paragraph))


def page() -> Iterator[str]:
    yield f'.TH EMUPIN 8 "" "emupin {__version__}" "System Administration"'
    yield (PACKAGING / "man/emupin.8.head").read_text(encoding="utf-8").rstrip("\n")
    yield ".SH COMMANDS"
    for command, summary in commands(parser()):
        yield from section(command, summary)
    yield (PACKAGING / "man/emupin.8.tail").read_text(encoding="utf-8").rstrip("\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print("\n".join(page()))
