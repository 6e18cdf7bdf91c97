"""What can go wrong, each error with its facts: where, what, and what to do about it."""

from __future__ import annotations

from emupin.base.system import os


class EmupinError(Exception):
    """Bad input or a bad host, never a bug.

    Rendered as one line, `where: what; hint`, fit for a terminal, syslog and libvirt's own error message.
    """

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        super().__init__(where, what, hint)
        self.where, self.what, self.hint = where, what, hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


def needs_root(error: Exception) -> bool:
    """Whether it is only that an ordinary user asks. What is denied to root (by SELinux, say) has another cause."""
    return isinstance(error, PermissionError) and os.geteuid() != 0


def hint(error: OSError, otherwise: str) -> str:
    """What to do about `error`."""
    return "run it as root" if needs_root(error) else otherwise


class DomainError(EmupinError):
    """A domain XML that is refused: not well-formed, not a domain, or a CPU list that libvirt would not take."""


class PolicyError(EmupinError):
    """A policy file that is missing, insecure or not valid."""


class HostError(EmupinError):
    """A file of the kernel or of libvirt that is missing, unreadable or not what its documentation says."""


class TraceError(HostError):
    """The kernel does not let us see who takes whose CPU."""


class EnforceError(EmupinError):
    """An emulator thread that could not be put on the planned CPUs."""


class RecordError(EmupinError):
    """libvirt did not take the pin into its own definitions."""


class BusyError(RecordError):
    """Somebody else has the guest's job: to be asked again later."""


class TimedOutError(EmupinError):
    """The hook's own time limit, after which libvirt must get its answer."""
