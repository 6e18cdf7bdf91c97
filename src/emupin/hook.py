"""The hook's Python half: libvirt calls `hooks/qemu NAME OPERATION SUB-OPERATION EXTRA` with a domain XML on stdin.

It runs several times in each guest's life, on the standard library's cheapest modules alone; every import costs.
The shell front-end turns its exit status into libvirt's: REFUSED into 1, anything else into 0. It may be killed at any
time; what its trouble means for the start it tells the shell by a signal, as soon as it knows.
"""

from __future__ import annotations

import sys

from emupin.base import cpuset, files, limit
from emupin.base.errors import EmupinError, HostError
from emupin.base.log import log
from emupin.base.system import os
from emupin.base.text import printable
from emupin.bundle import loader
from emupin.trail import entries, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from emupin.guest.splice import Edit
    from emupin.node.decision import Decision
    from emupin.node.enforce import Left
    from emupin.policy.values import Policy
else:
    import _signal  # `signal` brings `enum` with it, a third of the hook's start-up time.

REFUSED = 3
"""Exit status: libvirt must not start this guest."""
UNPRINTED = 4
"""Exit status: what was printed is not whole."""

SECONDS = 9.0
"""Until the work is broken off: the shell's ten, less one for reporting it."""
KEEPING_SECONDS = 7.0
"""To keep modules takes some times as long as the call itself: whoever has less left does not begin it."""

FILTERS = ("migrate", "restore")  # libvirt takes their output for the domain XML.
DECIDES = ("prepare", *FILTERS)
ENFORCES = ("started", "reconnect", "attach")
NEVER_REFUSED = ("reconnect", "attach", "stopped", "release")


class Call:
    """One call of the hook, and how far it has come: for trouble of whatever kind and however sudden."""

    refuses = False
    """Whether trouble refuses the start: the policy says so once it is known."""
    decision: Decision | None = None
    is_told = False
    """What the trouble is was reported by an earlier call, once for all."""
    trail_fails = False
    """The audit trail could not be written: not tried again, for a lock would be waited for twice."""

    last_act: Callable[[], None] | None = None
    """Has somebody carry out an order that was left."""

    def __init__(self, shell: str, name: str, operation: str, streams: Sequence[int] = (0, 1, 2)) -> None:
        self.root, self.name, self.operation = files.root_from_environment(), name, operation
        self.shell = int(shell)
        """The front-end's process id, which waits; 0 for none."""
        self.input, self.output, self.errors = streams


def main() -> None:
    """Serve the call that `sys.argv` and stdin describe, and end at once: to take the interpreter down costs time."""
    status = run(call := Call(sys.argv[1], sys.argv[2], sys.argv[3]))
    found = loader.found()
    if not status and call.operation not in FILTERS:
        _set_refuses(call, "start")  # All is done: what goes wrong from here on stops no guest.
    if call.last_act:
        call.last_act()
    if limit.left() > KEEPING_SECONDS:
        loader.keep(found)  # Behind all that counts: it takes the longest of all where it has something to do.
    os._exit(status)


def run(call: Call) -> int:
    """Serve `call`; the exit status. The work has a limit, but an answer that is being printed is not broken off."""
    sys.excepthook = lambda kind, error, trace: _report_bug(call, kind, error, trace)
    limit.begin(SECONDS)
    try:
        answer = serve(call)
        limit.end()
    except EmupinError as error:
        return _trouble(call, str(error))
    try:
        files.write_all(call.output, answer)
    except OSError as error:
        return _trouble(call, f"stdout: cannot be written: {error.strerror}; find out what closed it") or UNPRINTED
    return 0


def serve(call: Call) -> bytes:
    """Do what the operation wants; what is to be printed, nothing where nothing changes. Raises EmupinError."""
    is_session = os.geteuid() and not call.root  # An ordinary user's own libvirt: nothing there is emupin's to place.
    if is_session or call.operation not in (*DECIDES, *ENFORCES, "release"):
        return b""
    from emupin.node import store

    found = store.find(call.root)
    for problem in found.problems:
        log(call.root, problem, trouble=True)
    if call.operation == "release":
        _release(call, found.policy)
        return b""
    if found.policy is None:
        return b""
    _set_refuses(call, found.policy.on_failure)
    from emupin.node.decision import decide

    data, source, filtered = _read_stdin(call), f"domain XML of {call.name}", call.operation in FILTERS
    decision = call.decision = decide(call.root, found.policy, data, source, found.problems, filtered=filtered)
    if warnings := decision.warnings(told=found.problems):
        from emupin.node import told

        told.warn(call.root, call.name, call.operation, warnings)
    if decision.plan.taken and not decision.plan.decides and call.operation in ENFORCES:
        from emupin import order

        decision, call.last_act = order.give_back(call.root, decision)
        if call.last_act:
            _audit(call, decision, "enforced")
            return b""
    if decision.plan.rule is None:
        if decision.plan.warnings:
            _audit(call, decision, "unchanged")
        return b""
    return _act(call, decision)


def _act(call: Call, decision: Decision) -> bytes:
    """Do what comes of the decision for a guest that a rule takes; what is to be printed. Raises EmupinError."""
    _set_refuses(call, decision.plan.on_failure)
    if call.operation == "prepare" and decision.stuck:
        from emupin.node.ownpin import judge

        decision = call.decision = judge(call.root, decision, call.refuses)
    if not decision.plan.failed:
        return _rewrite(call, decision) if call.operation in DECIDES else _enforce(call, decision)
    failure = HostError(f"guest {call.name}", decision.plan.reason, "change its pins or the policy")
    if decision.plan.taken and call.operation in ENFORCES and not call.refuses:
        from emupin.node.refuge import move_away

        raise HostError(failure.where, f"{failure.what}; {move_away(call.root, decision)}", failure.hint)
    changes = [] if call.refuses else _removal(call, decision)
    if not changes:
        raise failure
    from emupin.node import told

    told.warn(call.root, call.name, call.operation, (str(failure),))
    return _changed(call, decision, changes)


def _set_refuses(call: Call, on_failure: str) -> None:
    refuses = on_failure == "refuse" and call.operation not in NEVER_REFUSED
    if refuses != call.refuses:
        call.refuses = refuses
        if call.shell:
            os.kill(call.shell, _signal.SIGUSR1 if refuses else _signal.SIGUSR2)


def _release(call: Call, policy: Policy | None) -> None:
    """The guest is gone: its CPUs are free."""
    from emupin.guest.domainxml import read
    from emupin.node import postponed, told
    from emupin.node.claims import Ledger

    guest = read(_read_stdin(call), f"domain XML of {call.name}", frozenset())
    with Ledger(call.root, policy) as ledger:
        ledger.release(guest.uuid or "")
        ledger.save()
    told.forget(call.root, call.name)
    if policy and guest.uuid and postponed.take(call.root, guest.uuid):
        from emupin import order

        call.last_act = order.leave(call.root, call.name, order.correction(guest.uuid, policy.digest))


def _read_stdin(call: Call) -> bytes:
    """The domain XML; one byte more than is allowed is enough to refuse it. Raises HostError."""
    from emupin.guest.xmltree import LARGEST

    try:
        data = files.read_stream(call.input, LARGEST + 1)
    except OSError as error:
        raise HostError("stdin", f"cannot be read: {error.strerror}", "libvirt writes the domain XML there") from None
    if not data:
        from emupin.node.emptystdin import complaint

        nothing, call.is_told = complaint(call.root, call.name)
        raise nothing
    return data


def _rewrite(call: Call, decision: Decision) -> bytes:
    """The rewritten XML; nothing where the pin is right already."""
    plan = decision.plan
    if plan.pin is None:
        return _changed(call, decision, _removal(call, decision))
    from emupin.guest.splice import edits

    return _changed(call, decision, edits(decision.data, decision.guest, plan.pin, plan.follow_iothreads))


def _removal(call: Call, decision: Decision) -> list[Edit]:
    """What takes out a pin that comes in and must not hold: libvirt cannot start the guest with it, or it is taken."""
    if call.operation not in FILTERS or not (decision.stuck or decision.plan.taken):
        return []
    from emupin.node.ownpin import removal

    return removal(call.root, decision)


def _changed(call: Call, decision: Decision, changes: list[Edit]) -> bytes:
    """The XML with the `changes`, nothing where there are none. Only from a filter libvirt takes it."""
    rewritten = call.operation in FILTERS
    _audit(call, decision, ("rewritten" if rewritten else "decided") if changes else "unchanged", changes)
    if not changes:
        return b""
    before, after = (cpuset.format(pin or ()) or "none" for pin in (decision.guest.emulatorpin, decision.plan.pin))
    done = f"emulatorpin {before} -> {after}" if rewritten else f"decided on {after}, the definition says {before}"
    why = "" if decision.plan.failed else f": {decision.plan.reason}"  # A failure has been told.
    log(call.root, f"{call.name}: {call.operation}: {done}{why}")
    from emupin.guest.splice import apply

    return apply(decision.data, changes)


def _enforce(call: Call, decision: Decision) -> bytes:
    """Put the live threads where they belong, then leave libvirt's definitions to a process of their own."""
    plan, cpus = decision.plan, decision.plan.cpus
    if cpus is None:
        return b""
    from emupin import order
    from emupin.guest.threads import check_process, read_status_file
    from emupin.node.enforce import enforce

    status = read_status_file(call.root, call.name)
    if decision.guest.uuid is None or status.domain.uuid != decision.guest.uuid:
        raise HostError(f"guest {call.name}", "libvirt's status file is another guest's", "is it being replaced?")
    check_process(call.root, status.pid, decision.guest.uuid)
    done = enforce(call.root, status, cpus, os.sched_setaffinity, plan.follow_iothreads, plan.vhost)
    for each in done.left:
        log(call.root, f"{call.name}: {each}", trouble=True)
    if call.refuses:
        done.check(call.name, cpus)
    if not order.is_recorded(call.root, plan, decision.guest, status, decision.policy):
        call.last_act = order.leave(call.root, call.name, order.order_for(plan, status, decision.policy.digest))
    done.check(call.name, cpus)
    changes = done.groups or done.moved
    _audit(call, decision, "enforced" if changes else "unchanged", left=done.left)
    if changes:
        log(call.root, f"{call.name}: {call.operation}: emulator threads moved to {cpuset.format(cpus)}")
    return b""


def _audit(
    call: Call, decision: Decision, outcome: str, changes: list[Edit] | None = None, left: tuple[Left, ...] = ()
) -> None:
    """Write the entry; `left` are the threads that stayed elsewhere.

    A disk that is full must not cost the guest its CPUs, unless the policy refuses any trouble.
    """
    try:
        entry = entries.entry(call.operation, outcome, decision, changes or [], left)
        writer.append(call.root, entry, durable=outcome == "rewritten")
    except HostError as error:
        call.trail_fails = True
        if call.refuses:
            raise
        log(call.root, f"{call.name}: {error}", trouble=True)


def _trouble(call: Call, message: str) -> int:
    """Report; the exit status that the policy wants."""
    if not call.is_told:
        from emupin import trouble

        trouble.report(call.root, call.name, call.operation, message, call.decision, call.refuses, not call.trail_fails)
    if not call.refuses:
        return 0
    try:
        files.write_all(call.errors, os.fsencode(printable(f"emupin: {message}")) + b"\n")
    except OSError as error:
        log(call.root, f"{call.name}: stderr: {error.strerror}; libvirt's error does not say why it is refused")
    return REFUSED


def _report_bug(call: Call, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nobody foresaw: its traceback goes to syslog, and the policy decides as for any other trouble."""
    from emupin import trouble

    trouble.log_traceback(call.root, kind, error, trace)
    os._exit(_trouble(call, f"guest {call.name}: {kind.__name__}: {error} (a bug: the traceback is in syslog)"))
