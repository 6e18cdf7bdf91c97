"""Options that several commands share, and the values they stand for."""

from __future__ import annotations

import argparse
import sys

from emupin.base.errors import PolicyError
from emupin.base.files import POLICIES, policy_path, read_bytes, root_from_environment
from emupin.engine import interrupts, topology
from emupin.screen import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.engine.host import Host
    from emupin.policy.values import Policy

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, options as wide as the terminal: to find that out `argparse` would load `shutil`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal.width() - 2)


def add_choices(parser: argparse.ArgumentParser, metavar: str) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Subcommands, one of which must be given: without one the whole help goes to stderr, with status 2."""

    def show_help(_args: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return 2

    parser.set_defaults(run=show_help)
    return parser.add_subparsers(metavar=metavar)


def add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", metavar="FILE", help=f"the policy (default: the installed one, {POLICIES[0]})")


def add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        metavar="FILE|none",
        help="another host, recorded with `emupin host --snapshot`, or its root folder; none: skip what needs a host "
        "(default: this machine)",
    )


def add_together(parser: argparse.ArgumentParser) -> None:
    what = "take the files as guests that start on one host, in this order"
    parser.add_argument("--together", action="store_true", help=what)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_duration(parser: argparse.ArgumentParser, default: float) -> None:
    """How long to measure."""
    text = f"{default:g}s (default), 5m, 1h"
    parser.add_argument("--for", dest="seconds", type=_seconds, default=default, metavar="TIME", help=text)


def _seconds(text: str) -> float:
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 1s to 24h")
    return seconds


def count(text: str) -> int:
    """The type of an option that takes a number from 1 up."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def read_policy(path: str | None) -> Policy:
    """The policy in `path`, or the installed one. Raises PolicyError."""
    from emupin.grammar.policyfile import compile_policy

    path = path or policy_path(root_from_environment())
    if path is None:
        installed = root_from_environment() + POLICIES[0]
        raise PolicyError(installed, "no policy is installed", "write one, or give --policy FILE")
    try:
        return compile_policy(read_bytes(path), path)
    except OSError as error:
        raise PolicyError(path, f"cannot be read: {error.strerror}", "give a policy with --policy FILE") from None


def read_host(choice: str | None) -> Host | None:
    """The facts that `--host` asks for: this machine's where it is not given, None for `none`. Raises HostError."""
    if choice is None:
        root = root_from_environment()
        return interrupts.add(root, topology.read(root))
    if choice == "none":
        return None
    from emupin.engine import snapshot

    return snapshot.load(choice)
