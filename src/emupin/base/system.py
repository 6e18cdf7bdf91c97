"""`os` for the modules of the hook, which would use a tenth of the real one and pay for all of it at every call.

`from emupin.base.system import os` is the real module for the type checker, and wherever it is loaded anyhow. In the
hook it has what Python's core has of it; what is missing there comes from the real one when somebody asks for it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os as os
elif "os" in sys.modules:
    import os
else:
    import posix

    def _mode(path, status=posix.stat):
        try:
            return status(path).st_mode
        except (OSError, ValueError):
            return 0

    class _Path:
        """`os.path`, as far as every call needs it."""

        def exists(self, path):
            return _mode(path) != 0

        def lexists(self, path):
            return _mode(path, posix.lstat) != 0

        def isdir(self, path):
            return _mode(path) & 0o170000 == 0o040000

        def isfile(self, path):
            return _mode(path) & 0o170000 == 0o100000

        def dirname(self, path):
            return path.rpartition("/")[0].rstrip("/") or path[: path.startswith("/")]

        def basename(self, path):
            return path.rpartition("/")[2]

        def __getattr__(self, name):
            import os

            return getattr(os.path, name)

    class _System(type(sys)):
        path = _Path()

        def fsdecode(self, name):
            return name.decode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())

        def fsencode(self, name):
            return name.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())

        def __getattr__(self, name):
            import os

            return getattr(os, name)

    os = _System("os")
    os.__dict__.update(posix.__dict__)
    os.__dict__["environ"] = {os.fsdecode(name): os.fsdecode(value) for name, value in posix.environ.items()}
