"""What the hook and the recording process say of trouble: in syslog, and in the audit trail. Few of them have any."""

from __future__ import annotations

from emupin.base import limit
from emupin.base.errors import HostError
from emupin.base.log import log
from emupin.node import told
from emupin.trail import entries, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from emupin.node.decision import Decision


def report(
    root: str, name: str, operation: str, message: str, decision: Decision | None, refused: bool, in_trail: bool
) -> None:
    """The trouble of a call of the hook for the guest `name`, that stopped it where it was `refused`."""
    patience = limit.end()
    text = told.in_short(root, name, operation, message)
    log(root, f"{operation}: {text}", trouble=True)
    entry = entries.failure(operation, "refused" if refused else "failed", name, decision, text)
    if in_trail:
        try:
            writer.append(root, entry, patience=patience)
            told.note(root, name, operation, message)
        except HostError as error:
            log(root, f"{name}: {error}", trouble=True)


def log_traceback(root: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of an error that nobody foresaw."""
    import traceback

    for line in traceback.format_exception(kind, error, trace):
        log(root, line.rstrip(), trouble=True)
