"""`emupin rewrite`: domain XML through the policy, as a filter, as a diff, as a check, or in place."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from emupin import parallel, streams, walk
from emupin.audit import now
from emupin.commands import options
from emupin.errors import EmupinError
from emupin.inplace import read_descriptor, read_file
from emupin.interruption import Interruption
from emupin.rewriting import Batch, Rewriter, Wishes, load_witness, named

BATCH = 64
"""Files that a worker takes at a time: enough to make the exchange between processes cheap."""

EPILOG = """\
Without a file, or with `-`, the XML comes from stdin. Without an option the result of one document goes to stdout.
A folder stands for every *.xml file below it; hidden files and links to folders are left out.
--in-place replaces a file in one step and keeps its mode, owner and extended attributes. Against a power cut this
relies on the file system (ext4 orders it so); --sync does not, and takes several times as long.

status: 0; with --check 1 if something would change; 2 after an error. One bad file does not stop the others.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "rewrite",
        help="put the policy's pins into domain XML",
        description="Put the policy's pins into domain XML and change no other byte.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="domain XML files or folders; - is stdin")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="name the files that would change, status 1 if any")
    action.add_argument("--in-place", action="store_true", help="replace the files that change")
    parser.add_argument("--diff", action="store_true", help="print a unified diff of each file that changes")
    parser.add_argument("--report", metavar="FILE", help="write an HTML page of all decisions, with diffs and pictures")
    parser.add_argument("--validate", action="store_true", help="prove each result with lxml and libvirt's schema")
    parser.add_argument("--sync", action="store_true", help="with --in-place: wait for the disk each time")
    parser.add_argument("--jobs", type=_count, metavar="N", help="processes (default: one for each CPU)")
    options.add_policy(parser)
    options.add_host(parser)
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where no document can be worked on, OSError where stdout takes nothing."""
    files = args.files or ["-"]
    _check_usage(files, args)
    if args.validate:
        load_witness()
    rewriter = Rewriter(
        options.read_policy(args.policy),
        options.read_host(args.host),
        Wishes(args.check, args.in_place, args.diff, args.validate, args.sync, bool(args.report)),
    )
    report = _Report(rewriter, args.report) if args.report else None
    single = not report and (files == ["-"] or not (args.check or args.in_place or args.diff))
    total = _single(rewriter, files[0]) if single else _many(rewriter, files, args.jobs or _cores(), report)
    if report:
        report.write()
    return 2 if total.failed else int(args.check and total.changed > 0)


def _check_usage(files: list[str], args: argparse.Namespace) -> None:
    if args.in_place and "-" in files:
        raise EmupinError("emupin rewrite", "--in-place needs files, stdin cannot be replaced", "name files or folders")
    if args.sync and not args.in_place:
        raise EmupinError("emupin rewrite", "--sync without --in-place", "nothing is written to files: leave it away")
    if args.report and ("-" in files or not (args.check or args.diff)):
        hint = "give --diff or --check, and name files or folders"
        raise EmupinError("emupin rewrite", "--report is of files that are looked at, not written", hint)
    if "-" in files and len(files) > 1:
        raise EmupinError("emupin rewrite", "- (stdin) stands beside other files", "rewrite it in a call of its own")
    if not (args.check or args.in_place or args.diff) and (len(files) > 1 or os.path.isdir(files[0])):
        what = "several documents do not go to one stdout"
        raise EmupinError("emupin rewrite", what, "give --diff, --check or --in-place")


def _cores() -> int:
    """The CPUs that this process may use, not those of the machine."""
    return len(os.sched_getaffinity(0))


def _single(rewriter: Rewriter, path: str) -> Batch:
    """One document from `path` or stdin, read whole and worked out completely before anything is written."""
    batch = Batch()
    with named(path, batch):
        data = read_descriptor(streams.STDIN) if path == "-" else read_file(path)
        batch.output += rewriter.document(data, path, batch)
    _print(batch)
    return batch


def _many(rewriter: Rewriter, arguments: list[str], jobs: int, report: _Report | None) -> Batch:
    """All files that `arguments` stand for, in `jobs` processes."""
    total, found = Batch(), Batch()
    progress = _Progress(rewriter.wishes.in_place)
    with Interruption() as interruption:
        batches = _batches(walk.files(arguments, found.fail))
        work = rewriter.bound_to(interruption)
        with closing(parallel.in_order(work, batches, jobs)) as results:
            for batch in _checked(results, interruption):
                progress.clear()
                _print(batch)
                total.add_counts(batch)
                if report:
                    report.add(batch.rows, batch.unread)
                progress.show(total)
    progress.clear()
    _print(found)
    if report:
        report.add([], found.remarks)
    total.add_counts(found)
    if not total.files and not found.failed:
        streams.say("no *.xml file there")
    progress.end(total)
    return total


def _batches(files: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(files, BATCH)):
        yield batch


def _checked(results: Iterable[Batch], interruption: Interruption) -> Iterator[Batch]:
    """`results` until a signal comes. A worker that the signal ended is no trouble of its own."""
    try:
        for batch in results:
            yield batch
            interruption.check()
    except EmupinError:
        interruption.check()
        raise


def _print(batch: Batch) -> None:
    if batch.output:
        streams.put(batch.output)
    for remark in batch.remarks:
        streams.say(remark)


class _Report:
    """The page that `--report` asks for."""

    def __init__(self, rewriter: Rewriter, path: str) -> None:
        """Raises EmupinError where Jinja2 is missing."""
        from emupin.report import page, preview

        page.check_jinja()
        self.path, self.writer = path, page.write
        self.page = preview.page(rewriter.policy, rewriter.host, now())

    def add(self, rows: list[dict[str, Any]], problems: list[str]) -> None:
        self.page.add_all(rows, problems)

    def write(self) -> None:
        """Raises EmupinError."""
        self.writer(self.page, self.path)


class _Progress:
    """One line on stderr that counts files, only where stderr is a terminal."""

    def __init__(self, in_place: bool) -> None:
        self.changes = "changed" if in_place else "would change"
        self.visible = os.isatty(streams.STDERR)

    def show(self, total: Batch) -> None:
        self.write(f"{self.line(total)} …")

    def clear(self) -> None:
        self.write("\r\x1b[K")

    def end(self, total: Batch) -> None:
        self.write(f"{self.line(total)}\n")

    def line(self, total: Batch) -> str:
        failed = f", {total.failed:,} failed" if total.failed else ""
        return f"{total.files:,} files, {total.changed:,} {self.changes}{failed}"

    def write(self, text: str) -> None:
        if self.visible:
            sys.stderr.write(text)
            sys.stderr.flush()
