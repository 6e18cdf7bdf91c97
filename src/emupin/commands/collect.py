"""`emupin collect`: all that this node says of itself in one archive, for `emupin fleet`."""

from __future__ import annotations

import argparse
import os
import sys

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.base.files import root_from_environment
from emupin.commands import options

EPILOG = """\
The archive (tar, gzip) holds what `host --snapshot`, `status --json`, `doctor --json` and `audit head` print, the audit
trail with the policies and topologies that it refers to, and each guest's domain XML reduced to what a decision reads:
no password, no command line, no disk. Unpack it into a folder named after the node; `emupin fleet` reads many of these.

status: 0; 2 where something could not be read, and the archive has the rest.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "collect",
        help="collect this node's state into one archive",
        description="Collect this node's state into one archive for `emupin fleet`.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write FILE instead of stdout")
    parser.add_argument("--no-trail", action="store_true", help="leave the audit trail out; its head stays")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where the archive cannot be written."""
    from emupin.fleet import collection
    from emupin.trail.entries import now

    if args.output is None and os.isatty(streams.STDOUT):
        raise EmupinError("emupin collect", "an archive cannot go to a terminal", "give -o FILE")
    where = args.output or "stdout"
    try:
        with open(args.output, "xb", opener=_private) if args.output else sys.stdout.buffer as file:
            problems = collection.write(file, root_from_environment(), now(), not args.no_trail)
    except OSError as error:
        raise EmupinError(where, f"cannot be written: {error.strerror}", "name a file that is not there yet") from None
    for problem in problems:
        streams.say(problem)
    return 2 if problems else 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
