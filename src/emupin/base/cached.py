"""Values that cost more to work out than to read, for the next process: marshal's bytes in a file of root's own.

A cache may go at any time. What it holds counts only where this version of emupin wrote it under this very Python, for
marshal's format follows the interpreter, and about the same thing.
"""

from __future__ import annotations

import marshal
import sys

from emupin import __version__
from emupin.base.digest import hex_digest
from emupin.base.errors import PolicyError
from emupin.base.files import make_private_folder, read_trusted, replace_file
from emupin.base.system import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WRITER = (__version__, sys.hexversion)


def read(path: str, about: object) -> Any:
    """What the file holds `about` this; None where it is not there, torn, another's, or not to be trusted."""
    try:
        digest, _, data = read_trusted(path).partition(b"\n")
        if digest != hex_digest(data).encode():
            return None
        written_by, written_about, value = marshal.loads(data)
    except (OSError, PolicyError, EOFError, ValueError, TypeError):  # Written whole, in another format.
        return None
    return value if (written_by, written_about) == (WRITER, about) else None


def write(path: str, about: Any, value: Any) -> None:
    """Keep a value of tuples, sets, dicts, strings, numbers and None. Raises OSError."""
    data = marshal.dumps((WRITER, about, value))
    make_private_folder(os.path.dirname(path))
    replace_file(path, hex_digest(data).encode() + b"\n" + data, durable=False)


def keep(path: str, about: Any, value: Any) -> None:
    """`write`, where that can be done: else only time is lost, and whoever else writes there reports it."""
    try:
        write(path, about, value)
    except OSError:
        return
