"""The policy file: there, one, trusted, valid; and what is in force where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emupin.base.errors import PolicyError
from emupin.base.files import POLICIES, policy_path, read_trusted
from emupin.doctor.diagnosis import Diagnosis, ok, problem, warning
from emupin.doctor.machine import unreadable
from emupin.grammar.policyfile import compile_policy, problems
from emupin.node import store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emupin.doctor.machine import Machine
    from emupin.policy.values import Policy


def in_force(machine: Machine) -> Policy | None:
    """The policy that holds: the present one, or else the last good one. Raises HostError."""
    try:
        return _present(machine)
    except PolicyError:
        return _last_good(machine)


def _present(machine: Machine) -> Policy | None:
    """Raises PolicyError, HostError."""
    path = policy_path(machine.root)
    return None if path is None else _use(machine, path)


def _last_good(machine: Machine) -> Policy | None:
    """The policy that the hook falls back to; None where there is none that it can use. Raises HostError."""
    path = None
    try:
        path = store.last_good_path(machine.root)
        return _use(machine, path)
    except (FileNotFoundError, PolicyError):
        return None
    except OSError as error:
        raise unreadable(path or machine.path(store.LAST_GOOD), error) from None


def _use(machine: Machine, path: str) -> Policy:
    """The policy in the file, as the hook gets at it: from its compiled form, if there is one. Raises as `_read`."""
    source = _read(path)
    return store.read_compiled(store.compiled_path(machine.root, source)) or compile_policy(source, path)


def _read(path: str) -> bytes:
    """Raises PolicyError, HostError."""
    try:
        return read_trusted(path)
    except FileNotFoundError:
        raise PolicyError(path, "is a link that leads nowhere", "remove or repair it") from None
    except OSError as error:
        raise unreadable(path, error) from None


def check_policy(machine: Machine) -> Iterator[Diagnosis]:
    """It is there and can be used. Raises HostError."""
    try:
        path = policy_path(machine.root)
        if path is None:
            cure = f"copy {POLICIES[0]}.example to {POLICIES[0]} and edit it"
            yield problem("there is no policy, so the hook does nothing", cure)
            return
        found = problems(_read(path), path)
    except PolicyError as error:
        found = [error]
        path = error.where
    yield from (problem(f"{error.where}: {error.what}", error.hint) for error in found)
    if found:
        yield _fallback(machine)
    else:
        yield ok(f"{path} is valid, and only root can change it")


def _fallback(machine: Machine) -> Diagnosis:
    try:
        if _present(machine):
            cure = "fix it soon: the compiled copy does not survive a reboot or an update"
            return warning("the compiled copy of the policy is still in force", cure)
    except PolicyError:
        pass  # Not compiled before either.
    if _last_good(machine):
        return warning("the last good policy is in force instead", "fix the policy: it takes effect at the next start")
    return problem("there is no last good policy either: the hook does nothing", "fix the policy")
