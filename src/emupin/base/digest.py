"""SHA-256 without OpenSSL, whose loading alone takes as long as a whole bare interpreter.

The interpreter's own implementation has a private name that changed in Python 3.12, and some distributions build
without it: `hashlib` is the way that always works.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:
        from hashlib import sha256


def hex_digest(data: bytes) -> str:
    """The SHA-256 of `data`, in hex."""
    return sha256(data).hexdigest()
