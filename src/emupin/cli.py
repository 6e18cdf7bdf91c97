"""The command line: `emupin COMMAND …`."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from emupin import __version__, streams
from emupin.errors import EmupinError
from emupin.interruption import InterruptedBySignal

if TYPE_CHECKING:
    from collections.abc import Sequence

BY_SIGNAL = 128
"""Added to a signal's number: the status that a shell shows for a process that the signal ended."""


def parser() -> argparse.ArgumentParser:
    from emupin.commands import host, policy, rewrite

    top = argparse.ArgumentParser(
        prog="emupin",
        description="Keeps the emulator threads of libvirt QEMU guests where a policy wants them.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"emupin {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in (rewrite, policy, host):
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. The one place where an EmupinError becomes a line on stderr."""
    streams.occupy_closed()
    try:
        args = parser().parse_args(argv)
        status: int = args.run(args)
        streams.flush()
    except EmupinError as error:
        streams.say(str(error))
        return 2
    except BrokenPipeError:
        streams.abandon_stdout()
        return BY_SIGNAL + signal.SIGPIPE
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
    except InterruptedBySignal as interruption:
        return BY_SIGNAL + interruption.number
    return status
