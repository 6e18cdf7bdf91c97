"""`emupin policy`: validate the policy file, print the policy as the engine understands it, or try it on guests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emupin.base import streams
from emupin.base.errors import PolicyError
from emupin.base.files import POLICIES, policy_path, read_bytes, read_trusted, root_from_environment
from emupin.commands import options, policytest
from emupin.grammar.policyfile import compile_policy, problems
from emupin.grammar.policytext import render, render_json

if TYPE_CHECKING:
    import argparse

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


STATUS = "status: 0; 1 if the policy is not valid; 2 if it cannot be used."


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("policy", help="check the policy file, print it in full, or try it on guests")
    actions = options.add_choices(parser, "ACTION")
    checker = actions.add_parser("check", help="validate the policy", epilog=STATUS)
    checker.set_defaults(run=check)
    shower = actions.add_parser(
        "show", help="print the effective policy, with every default spelled out", epilog=STATUS
    )
    shower.add_argument("--json", action="store_true", help="as JSON instead of YAML")
    shower.set_defaults(run=show)
    policytest.add_parser(actions)
    for action in (checker, shower):
        action.add_argument(
            "file", nargs="?", metavar="FILE", help=f"the policy (default: {POLICIES[0]} or policy.json)"
        )
        action.add_argument("--policy", metavar="FILE", help="the same, as the other commands take it")


def check(args: argparse.Namespace) -> int:
    """Print every problem of the policy, or that it has none. Raises PolicyError as `_read`."""
    path, data = _read(args)
    found = problems(data, path)
    for problem in found:
        streams.say(str(problem))
    if not found:
        count = len(compile_policy(data, path).rules)
        streams.put(os.fsencode(f"{path}: ok, {count} rule{'' if count == 1 else 's'}\n"))
    return 1 if found else 0


def show(args: argparse.Namespace) -> int:
    """Print the effective policy, or what is wrong with it. Raises PolicyError as `_read`."""
    path, data = _read(args)
    found = problems(data, path)
    for problem in found:
        streams.say(str(problem))
    if not found:
        policy = compile_policy(data, path)
        streams.put((render_json(policy) if args.json else render(policy)).encode())
    return 1 if found else 0


def _read(args: argparse.Namespace) -> tuple[str, bytes]:
    """The path and the content of the policy file that is given, or else of the one below `$EMUPIN_ROOT`.

    Raises PolicyError where it cannot be read, or is the installed one and the hook does not trust it.
    """
    if args.file and args.policy:
        raise PolicyError(args.file, f"is given, and --policy {args.policy} as well", "give one of the two")
    root = root_from_environment()
    path = args.file or args.policy or policy_path(root)
    if path is None:
        hint = f"start from a copy of {POLICIES[0]}.example, or name a file"
        raise PolicyError(f"{root}{POLICIES[0]}", "there is no policy", hint)
    installed = path in [root + each for each in POLICIES]
    try:
        return path, read_trusted(path) if installed else read_bytes(path)
    except OSError as error:
        raise PolicyError(path, f"cannot be read: {error.strerror}", "check the name and its permissions") from None
