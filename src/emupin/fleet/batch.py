"""What comes of some documents: each is counted and heard, and what goes wrong with one does not stop the others."""

from __future__ import annotations

from emupin.base import streams
from emupin.base.errors import EmupinError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Self

OPERATING_SYSTEM_HINTS = {
    "EACCES": "run this as its owner or as root",
    "EPERM": "run this as its owner or as root",
    "ENOSPC": "free some space and run the command again",
    "EROFS": "remount it read-write",
    "EISDIR": "give its files, or --diff, --check or --in-place for all below it",
}


class Batch:
    """What came of some files: how many, and what goes to stdout and to stderr."""

    def __init__(self) -> None:
        self.files = self.changed = self.failed = 0
        self.unseen = 0
        """Files that were changed and that libvirt will not look at before it starts anew."""
        self.output = b""
        self.remarks: list[str] = []
        self.rows: list[dict[str, Any]] = []
        """For a report."""
        self.unread: list[str] = []
        """Errors of documents that have no row."""

    def add(self, path: str, document: Callable[[str, Self], bytes]) -> None:
        """Count the document `path` and take what `document` prints, or note what goes wrong: the others go on."""
        self.files += 1
        rows = len(self.rows)
        try:
            self.output += document(path, self)
            return
        except EmupinError as error:
            problem = error
        except OSError as error:
            problem = _system_error(path, error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours costs this document, not the thousands after it
            problem = _bug(path, error)
        self.fail(problem)
        if len(self.rows) == rows:
            self.unread.append(str(problem))

    def fail(self, error: EmupinError) -> None:
        self.failed += 1
        self.remarks.append(str(error))

    def add_counts(self, other: Batch) -> None:
        self.files += other.files
        self.changed += other.changed
        self.failed += other.failed
        self.unseen += other.unseen

    def put(self) -> None:
        """Write what there is for stdout and for stderr. Raises as `streams.put` does."""
        if self.output:
            streams.put(self.output)
        for remark in self.remarks:
            streams.say(remark)


def _bug(path: str, error: Exception) -> EmupinError:
    import traceback

    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    what = f"{type(error).__name__}: {error} (a bug of emupin's: please report it)"
    return EmupinError(path, what, f"the document was left as it is\n{trace}")


def _system_error(path: str, error: OSError) -> EmupinError:
    import errno

    hint = OPERATING_SYSTEM_HINTS.get(errno.errorcode.get(error.errno or 0, ""), "")
    return EmupinError(path, error.strerror or str(error), hint)
