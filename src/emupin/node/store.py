"""The policy in force on this host, as the hook gets at it: compiled once, and the last good one kept.

`run/emupin/policy-…` holds compiled policies by the digest of their source. A policy that compiles is kept as
`var/lib/emupin/policies/DIGEST.yaml` and named in `var/lib/emupin/last-good`, which counts where the file in
`/etc/emupin` is not valid.
"""

from __future__ import annotations

import sys

from emupin.base import cached
from emupin.base.digest import hex_digest
from emupin.base.errors import PolicyError, hint, needs_root
from emupin.base.files import RUN, STATE, policy_path, read_bytes, read_trusted, replace_file
from emupin.base.frozen import Frozen
from emupin.base.kept import POLICIES_KEPT, keep, place
from emupin.base.system import os
from emupin.engine.checks import CHECKS
from emupin.policy.values import Match, Placement, Policy, Rule

LAST_GOOD = f"{STATE}/last-good"

SHAPE = (*Policy._fields, *Rule._fields, *Match._fields, *Placement._fields, *CHECKS)
"""What a compiled policy consists of."""


class Found(Frozen):
    """The policy in force, if there is one, and what is wrong with the one that should be."""

    policy: Policy | None
    problems: tuple[str, ...] = ()


def find(root: str) -> Found:
    """The policy in force below `root`. A host without a policy file has none, and no problem."""
    try:
        path = policy_path(root)
        return Found(None) if path is None else _load(root, _read(path), path)
    except PolicyError as error:
        return _last_good(root, str(error))


def _read(path: str) -> bytes:
    try:
        return read_trusted(path)
    except OSError as error:
        raise PolicyError(path, f"cannot be read: {error.strerror}", hint(error, "fix the file or remove it")) from None


def _last_good(root: str, problem: str) -> Found:
    """The policy that was valid last, with the `problem` of the present one."""
    try:
        path = last_good_path(root)
        found = _load(root, read_trusted(path), path)
        return found.replace(problems=(f"{problem} (the last good policy stays in force)", *found.problems))
    except FileNotFoundError:
        return Found(None, (f"{problem} (there is no earlier valid one: no policy is in force)",))
    except (OSError, PolicyError) as error:
        if needs_root(error):
            return Found(None, (f"{problem} (only root can see whether there is an earlier valid one)",))
        why = error if isinstance(error, PolicyError) else f"{error.filename}: cannot be read: {error.strerror}"
        return Found(None, (f"{problem} (no policy is in force)", f"the last good policy cannot be used: {why}"))


def _load(root: str, source: bytes, path: str) -> Found:
    """The policy that `source` spells, from its compiled form where there is one. Raises PolicyError."""
    compiled, name = compiled_path(root, source), f"{hex_digest(source)}.{path.rpartition('.')[2]}"
    policy = read_compiled(compiled)
    if policy and _is_kept(root, name):
        return Found(policy)
    policy = policy or _compile(source, path)
    try:
        keep(root, POLICIES_KEPT, name, source)
        replace_file(root + LAST_GOOD, name.encode() + b"\n")
        cached.write(compiled, SHAPE, policy.to_plain())
    except OSError as error:
        if needs_root(error):  # Nothing is broken.
            return Found(policy)
        problem = f"{error.filename}: {error.strerror}; the policy is compiled on every call until this is fixed"
        return Found(policy, (problem,))
    return Found(policy)


def compiled_path(root: str, source: bytes) -> str:
    """Where the compiled form of a policy is, by the bytes of its file."""
    return f"{root}{RUN}/policy-{hex_digest(source)}"


def last_good_path(root: str) -> str:
    """Where the policy is kept that was valid last. Raises OSError where none is named."""
    return place(root, POLICIES_KEPT, os.path.basename(_last_good_name(root)))


def _last_good_name(root: str) -> str:
    """Raises OSError."""
    return os.fsdecode(read_bytes(root + LAST_GOOD)).strip()


def read_compiled(path: str) -> Policy | None:
    """None where it is not there, torn, another version's or not to be trusted: the source says the same."""
    plain = cached.read(path, SHAPE)
    return Policy.from_plain(plain) if plain else None


def _is_kept(root: str, name: str) -> bool:
    """Whether the policy `name` is kept, and known as the last good one."""
    try:
        last_good = _last_good_name(root)
    except OSError:
        return False
    return last_good == name and os.path.exists(place(root, POLICIES_KEPT, name))


def _compile(source: bytes, path: str) -> Policy:
    """Raises PolicyError."""
    if sys.flags.no_site:
        import site

        site.main()  # Where PyYAML lies; the hook starts without it.
    try:
        from emupin.grammar.policyfile import compile_policy
    except ModuleNotFoundError as error:  # Debian's python3-minimal has neither json nor difflib
        what = f"reading a policy needs Python's module {error.name}, which is not installed"
        raise PolicyError(path, what, "install python3, not python3-minimal alone") from None

    return compile_policy(source, path)
