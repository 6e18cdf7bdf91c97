"""libvirt's own definitions of a guest, by its API: only ever from a process that libvirt does not wait for."""

from __future__ import annotations

import time

from emupin.base.errors import BusyError, RecordError
from emupin.guest import splice
from emupin.guest.domain import EMULATOR
from emupin.guest.domainxml import read
from emupin.node.former import LIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    import libvirt

    Cpus = frozenset[int]
    Done = TypeVar("Done")

URI = "qemu:///system"
APPLY, UNDO = "emupin apply", "emupin apply --undo"
"""Commands that wait for a guest."""


def bindings() -> Any:
    """The bindings, quiet. Raises RecordError."""
    try:
        import libvirt
    except ImportError:
        hint = "install python3-libvirt: until then libvirt's own definitions stay as they are"
        raise RecordError("libvirt-python", "is not installed", hint) from None
    libvirt.registerErrorHandler(lambda *_: None, None)
    return libvirt


def connect(seconds: float) -> libvirt.virConnect:
    """A connection; libvirtd answers nobody until it has called `reconnect` for every guest."""
    import libvirt

    deadline = time.monotonic() + seconds
    while True:
        try:
            return libvirt.open(URI)
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def has_gone(error: libvirt.libvirtError) -> bool:
    """Whether that came of a connection that has ended: libvirtd is restarting, most likely (virnetclient.c)."""
    import libvirt

    return bool(error.get_error_domain() == libvirt.VIR_FROM_RPC)


def wait_until_free(domain: libvirt.virDomain, seconds: float, command: str = APPLY) -> None:
    """Wait, for so many `seconds`, while the guest is starting or coming in, or somebody else has a long job on it.

    A call would hold one of libvirtd's workers for 30 s and fail. `command` is what to run later. Raises BusyError,
    libvirtError.
    """
    deadline, pause = time.monotonic() + seconds, 0.02
    while not _is_free(domain):
        if time.monotonic() > deadline:
            what = "the guest is busy: it is starting, or is being migrated, saved or copied, or QEMU does not answer"
            raise BusyError(URI, what, later(command))
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def later(command: str) -> str:
    """The hint of a BusyError."""
    return f"run `{command}` when that has ended"


def _is_free(domain: libvirt.virDomain) -> bool:
    """Raises libvirtError."""
    import libvirt

    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_PAUSED and reason in (
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
    ):
        return False
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return True
    try:
        if domain.controlInfo()[0] != libvirt.VIR_DOMAIN_CONTROL_OK:
            return False  # To ask for the job would wait for it.
        kind: int = domain.jobInfo()[0]
        return bool(kind == libvirt.VIR_DOMAIN_JOB_NONE) or _is_backup(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,  # It is coming in by migration, though it may run already.
            libvirt.VIR_ERR_OPERATION_TIMEOUT,  # It has a job already,
            libvirt.VIR_ERR_OPERATION_INVALID,  # or has just ended.
        ):
            return False
        raise


def _is_backup(domain: libvirt.virDomain) -> bool:
    """Whether the guest's job is a backup, which may take hours and allows changes (qemuBackupBegin).

    Raises libvirtError.
    """
    import libvirt

    operation = getattr(libvirt, "VIR_DOMAIN_JOB_OPERATION_BACKUP", None)  # libvirt 6.0 and later.
    return operation is not None and domain.jobStats().get("operation") == operation


def change(ask: Callable[[], Done | None], kind: str, command: str = APPLY) -> dict[str, Done]:
    """What `ask` changed in the definition of a `kind`. Raises BusyError, libvirtError, EmupinError."""
    import libvirt

    try:
        done = ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_TIMEOUT:
            raise
        raise BusyError(URI, "somebody else has held the guest's job for 30 s", later(command)) from None
    return {kind: done} if done else {}


def change_pins(domain: libvirt.virDomain, pins: Mapping[str, Cpus | None], flags: int) -> None:
    """Make one definition say `pins`, None: none at all, which the persistent one alone can.

    Raises libvirtError, DomainError.
    """
    if taken_out := [key for key, cpus in pins.items() if cpus is None]:
        _take_out(domain, taken_out)
    for key, cpus in pins.items():
        if cpus and key == EMULATOR:
            domain.pinEmulator(_mask(cpus), flags)
        elif cpus:
            domain.pinIOThread(int(key), _mask(cpus), flags)


def _mask(cpus: Cpus) -> tuple[bool, ...]:
    return tuple(cpu in cpus for cpu in range(max(cpus) + 1))


def put_back(uuid: str, kind: str, pins: Mapping[str, Cpus | None], seconds: float) -> None:
    """Make the definition of a `kind`, live or persistent, say `pins` again; None: none at all. Raises RecordError."""
    libvirt = bindings()
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if kind == LIVE else libvirt.VIR_DOMAIN_AFFECT_CONFIG
    try:
        domain = connect(seconds).lookupByUUIDString(uuid)
        wait_until_free(domain, seconds, UNDO)
        change(lambda: change_pins(domain, pins, flags), kind, UNDO)
    except libvirt.libvirtError as error:
        raise RecordError(URI, str(error), f"what stood there before is not lost: run `{UNDO}` again") from None


def _take_out(domain: libvirt.virDomain, keys: Iterable[str]) -> None:
    """Define the guest anew without these pins: no call of libvirt's does. Raises libvirtError, DomainError."""
    import libvirt

    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    data = domain.XMLDesc(flags).encode()
    guest = read(data, "persistent definition", frozenset())
    domain.connect().defineXML(splice.apply(data, splice.give_way(data, guest, dict.fromkeys(keys))).decode())
