"""`emupin rewrite`: domain XML through the policy, as a filter, as a diff, as a check, or in place."""

from __future__ import annotations

import argparse
import os

from emupin.base import streams
from emupin.base.errors import EmupinError
from emupin.commands import options
from emupin.fleet import batches, together
from emupin.fleet.batch import Batch
from emupin.fleet.rewriting import Rewriter, Wishes, load_validation
from emupin.live.facts import read_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from emupin.fleet.together import Company

EPILOG = """\
Without a file, or with `-`, the XML comes from stdin. Without an option the result of one document goes to stdout.
A folder stands for every *.xml file below it; hidden files, links to folders and libvirt's networks (qemu/networks) are
left out.
The guests that run on this machine, or did when `--host FILE` was recorded, keep the CPUs that they hold. Each file is
decided as if its guest were the only one to start; with --together they start on one host, in the order of the files,
and stderr says how many more guests would fit.
--in-place replaces a file in one step and keeps its mode, owner and extended attributes. Whether that survives a power
loss depends on the file system (ext4: yes). --sync does not depend on it, and takes several times as long.

status: 0; with --check 1 if something would change; 2 after an error. A bad file does not stop the others.
"""


UNSEEN = (
    "{} of libvirt's own definitions changed: libvirt keeps them in memory, sees this only when its daemon restarts, "
    "and may overwrite it before then; `emupin apply --all --yes` changes definitions through libvirt"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "rewrite",
        help="write the policy's pins into domain XML",
        description="Write the policy's pins into domain XML and change no other byte.",
        epilog=EPILOG,
        formatter_class=options.Help,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="domain XML files or folders; - is stdin")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="name the files that would change, status 1 if any")
    action.add_argument("--in-place", action="store_true", help="replace the files that change")
    parser.add_argument("--diff", action="store_true", help="print a unified diff of each file that changes")
    parser.add_argument("--report", metavar="FILE", help="with --diff or --check: write an HTML page of all decisions")
    parser.add_argument("--validate", action="store_true", help="verify each result with lxml and libvirt's schema")
    parser.add_argument("--sync", action="store_true", help="with --in-place: wait for the disk each time")
    parser.add_argument(
        "--together", action="store_true", help="take the files as guests that start in order on one host"
    )
    parser.add_argument("--jobs", type=options.count, metavar="N", help="processes (default: one for each CPU)")
    options.add_policy(parser)
    options.add_host(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status. Raises EmupinError where no document can be worked on, OSError where stdout takes nothing."""
    files = args.files or ["-"]
    _check_usage(files, args)
    if args.validate:
        load_validation()
    policy = options.read_policy(args.policy)
    facts = read_facts(args.host, policy)
    rewriter = Rewriter(
        policy,
        facts,
        Wishes(args.check, args.in_place, args.diff, args.validate, args.sync, bool(args.report), args.together),
    )
    for remark in facts.remarks:
        streams.say(remark)
    report = _Report(rewriter, args.report) if args.report else None
    single = not report and (files == ["-"] or not (args.check or args.in_place or args.diff))
    jobs = 1 if args.together else args.jobs or batches.cores()
    total = _single(rewriter, files[0]) if single else _many(rewriter, files, jobs, report)
    if rewriter.company:
        _sum_up(rewriter.company, report)
    if report:
        report.write()
    return 2 if total.failed else int(args.check and total.changed > 0)


def _sum_up(company: Company, report: _Report | None) -> None:
    """How full the host is by now."""
    told = together.lines(company.capacity())
    for line in told:
        streams.say(line)
    if report:
        report.show_all(company, told)


def _check_usage(files: list[str], args: argparse.Namespace) -> None:
    if args.in_place and "-" in files:
        raise EmupinError("emupin rewrite", "--in-place needs files, stdin cannot be replaced", "name files or folders")
    if args.sync and not args.in_place:
        raise EmupinError("emupin rewrite", "--sync without --in-place", "no file is written: omit --sync")
    if args.report and ("-" in files or not (args.check or args.diff)):
        hint = "add --diff or --check, and name files or folders"
        raise EmupinError("emupin rewrite", "--report needs --diff or --check (it never writes files)", hint)
    if "-" in files and len(files) > 1:
        raise EmupinError("emupin rewrite", "- (stdin) cannot be combined with other files", "rewrite it separately")
    if not (args.check or args.in_place or args.diff) and (len(files) > 1 or os.path.isdir(files[0])):
        what = "stdout can hold only one document"
        raise EmupinError("emupin rewrite", what, "give --diff, --check or --in-place")


def _single(rewriter: Rewriter, path: str) -> Batch:
    """One document from `path` or stdin, read whole and worked out completely before anything is written."""
    batch = Batch()
    batch.add(path, rewriter.document)
    batch.put()
    return batch


def _many(rewriter: Rewriter, arguments: list[str], jobs: int, report: _Report | None) -> Batch:
    """All files that `arguments` stand for, in `jobs` processes."""
    total, found, progress = Batch(), Batch(), batches.Progress()
    changes = "changed" if rewriter.wishes.in_place else "would change"
    for batch in batches.through(Batch, rewriter.document, arguments, jobs, found.fail):
        progress.clear()
        batch.put()
        total.add_counts(batch)
        if report:
            report.add(batch.rows, batch.unread)
        progress.show(_counts(total, changes))
    progress.clear()
    found.put()
    if report:
        report.add([], found.remarks)
    total.add_counts(found)
    if not total.files and not found.failed:
        streams.say("there is no *.xml file")
    progress.end(_counts(total, changes))
    if total.unseen:
        streams.say(UNSEEN.format(f"{total.unseen} file{'' if total.unseen == 1 else 's'}"))
    return total


def _counts(total: Batch, changes: str) -> str:
    failed = f", {total.failed:,} failed" if total.failed else ""
    return f"{total.files:,} files, {total.changed:,} {changes}{failed}"


class _Report:
    """The page that `--report` asks for."""

    def __init__(self, rewriter: Rewriter, path: str) -> None:
        """Raises EmupinError where Jinja2 is missing."""
        from emupin.report import page, preview
        from emupin.trail.entries import now

        page.check_jinja()
        self.path, self.writer = path, page.write
        self.page = preview.page(rewriter.policy, rewriter.facts.host, now(), rewriter.wishes.together)
        self.together = rewriter.wishes.together
        self.waiting: list[dict[str, Any]] = []
        """Rows of guests that are decided together: their pictures show those that come later, too."""

    def add(self, rows: list[dict[str, Any]], problems: list[str]) -> None:
        self.waiting += rows if self.together else []
        self.page.add_all([] if self.together else rows, problems)

    def show_all(self, company: Company, notes: list[str]) -> None:
        """All guests have started: each row's picture shows all others."""
        from emupin.report.row import others_json

        self.page.notes += notes
        for row in self.waiting:
            row["others"] = others_json(company.everybody(row["uuid"] or row["where"]))
        self.page.add_all(self.waiting, [])

    def write(self) -> None:
        """Raises EmupinError."""
        self.writer(self.page, self.path)
