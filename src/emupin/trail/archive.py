"""Policies and topologies kept by the SHA-256 of their bytes: found again, proved to be those, and read once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from emupin.base.digest import hex_digest
from emupin.base.errors import EmupinError
from emupin.base.files import read_bytes
from emupin.base.kept import POLICIES_KEPT, TOPOLOGIES_KEPT
from emupin.engine import snapshot
from emupin.grammar.policyfile import compile_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from emupin.engine.host import Host
    from emupin.policy.values import Policy

    Value = TypeVar("Value")

SUFFIXES = {POLICIES_KEPT: (".yaml", ".json"), TOPOLOGIES_KEPT: (".json",)}
NOUNS = {POLICIES_KEPT: "policy", TOPOLOGIES_KEPT: "topology"}

HEX = frozenset("0123456789abcdef")
DIGITS = 64


@dataclass(frozen=True)
class KeptPolicy:
    """A policy, and the text it was written as."""

    policy: Policy
    text: str


class Archive:
    """What lies in the `policies` and `topologies` of some folders; a digest says the same wherever it is found."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)
        self.policies: dict[str, KeptPolicy | EmupinError] = {}
        self.hosts: dict[str, Host | EmupinError] = {}

    def policy(self, digest: object) -> KeptPolicy:
        """Raises EmupinError where it is not kept, not what it was, or no policy to this version of emupin."""
        return _once(self.policies, digest, self._policy)

    def host(self, digest: object) -> Host:
        """Raises EmupinError as `policy` does."""
        return _once(self.hosts, digest, self._host)

    def _policy(self, digest: str) -> KeptPolicy:
        path, data = self.file(POLICIES_KEPT, digest)
        return KeptPolicy(compile_policy(data, path), data.decode())

    def _host(self, digest: str) -> Host:
        path, data = self.file(TOPOLOGIES_KEPT, digest)
        return snapshot.parse(data, path).host

    def file(self, kind: str, digest: str) -> tuple[str, bytes]:
        """A kept file's path and content. Raises EmupinError."""
        altered = None
        for path in (f"{folder}/{kind}/{digest}{suffix}" for folder in self.folders for suffix in SUFFIXES[kind]):
            try:
                data = read_bytes(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise EmupinError(path, f"cannot be read: {error.strerror}", "run it as root") from None
            if hex_digest(data) == digest:
                return path, data
            altered = path
        if altered:
            raise EmupinError(altered, "was changed since it was saved: its digest differs", "restore it from a backup")
        hint = f"copy {kind}/ from the host's state folder, and name its location with --state"
        raise EmupinError("", f"the {NOUNS[kind]} {digest[:12]}… is not saved in {' or '.join(self.folders)}", hint)


def _once(known: dict[str, Value | EmupinError], digest: object, find: Callable[[str], Value]) -> Value:
    """What `find` gives for `digest`, or the error that it raises: found out once."""
    if not (isinstance(digest, str) and len(digest) == DIGITS and HEX.issuperset(digest)):
        raise EmupinError("entry", "names no digest of a policy or topology", "the entry may have been changed")
    if digest not in known:
        try:
            known[digest] = find(digest)
        except EmupinError as error:
            known[digest] = error
    found = known[digest]
    if isinstance(found, EmupinError):
        raise found
    return found


def beside(path: str) -> tuple[str, ...]:
    """Where the kept files of the trail in the folder `path` may be: in it, or where that host has them."""
    folder = os.path.abspath(path)
    root, _, rest = folder.rpartition("/var/log/emupin")
    return (folder, f"{root}/var/lib/emupin") if not rest and folder.endswith("/var/log/emupin") else (folder,)
