"""`emupin collect`: all that this node says of itself in one archive, for `emupin fleet`."""

from __future__ import annotations

import argparse
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.base.files import root_from_environment
from emupin.commands import options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

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
    parser.add_argument("-o", "--output", metavar="FILE", help="write a new FILE instead of stdout")
    parser.add_argument("--no-trail", action="store_true", help="leave the audit trail out; its head stays")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where the archive cannot be written."""
    from emupin.fleet import collection
    from emupin.trail.entries import now

    if args.output in (None, "-") and os.isatty(streams.STDOUT):
        raise EmupinError("emupin collect", "an archive cannot go to a terminal", "give -o FILE")
    with _new_file(args.output) if args.output not in (None, "-") else streams.stdout() as file:
        problems = collection.write(file, root_from_environment(), now(), not args.no_trail)
    for problem in problems:
        streams.say(problem)
    return 2 if problems else 0


@contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """For its owner alone, and there only if it was written to its end. Raises EmupinError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                yield file
        except BaseException:
            os.unlink(path)
            raise
    except OSError as error:
        is_there = isinstance(error, FileExistsError)
        hint = "name a file that is not there yet" if is_there else "name another place for it"
        raise EmupinError(path, f"cannot be written: {error.strerror}", hint) from None
