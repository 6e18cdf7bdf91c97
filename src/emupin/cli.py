"""The command line: `emupin COMMAND …`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module

from emupin import __version__
from emupin.base import streams
from emupin.base.build import build, reinstall
from emupin.base.errors import EmupinError
from emupin.base.interruption import InterruptedBySignal
from emupin.commands import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    "rewrite", "explain", "policy", "host", "status", "apply", "advise", "trace", "audit", "doctor", "collect", "fleet",
)  # fmt: skip
"""In the order of the help, each a module of `emupin.commands`."""

BY_SIGNAL = 128
"""Added to a signal's number: the status that a shell shows for a process that the signal ended."""


def parser(named: str = "") -> argparse.ArgumentParser:
    """For the command `named` alone, where there is one: each brings modules of its own."""
    top = argparse.ArgumentParser(
        prog="emupin",
        description="Keeps the emulator threads of libvirt QEMU guests where a policy wants them.",
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version, and which build of it this is")
    commands = options.add_choices(top, "COMMAND")
    for command in (named,) if named in COMMANDS else COMMANDS:
        import_module(f"emupin.commands.{command}").add_parser(commands)
    return top


def _complete_where_asked() -> None:
    """For a shell whose user pressed Tab; the process ends there. The line is in its environment, not in our words."""
    if "_ARGCOMPLETE" in os.environ:
        from emupin.commands.completion import complete

        complete(parser())


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        streams.put(f"emupin {__version__} (build {build()})\n".encode())
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. The one place where an EmupinError becomes a line on stderr."""
    streams.occupy_closed()
    try:
        words = sys.argv[1:] if argv is None else argv
        _complete_where_asked()
        try:
            with streams.trouble():
                args = parser(words[0] if words else "").parse_args(words)
            status: int = args.run(args)
        except SystemExit as ended:  # argparse has shown a help, or what is wrong with the words.
            status = int(ended.code or 0)
        streams.flush()
    except EmupinError as error:
        streams.say(str(error))
        return 2
    except ImportError as error:
        if not (error.name or "").startswith("emupin"):
            raise
        streams.say(f"emupin: {error}: the installation is damaged; {reinstall()}")
        return 2
    except BrokenPipeError:
        streams.abandon_stdout()
        return BY_SIGNAL + signal.SIGPIPE
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
    except InterruptedBySignal as interruption:
        return BY_SIGNAL + interruption.number
    return status
