"""The hook's modules from one file: to find and open forty of them would cost a third of what a call may.

The files, `run/emupin/modules-OPERATION`, are a cache like the compiled policy beside them, each with just what its
operation needs. A call that had to look for modules in the library leaves their code there for the next one. Code
counts only as long as its source is the very same file and unchanged, which one `stat` tells; anything else is looked
for where Python looks.
"""

from __future__ import annotations

import gc
import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from os import environb, geteuid, stat
    from types import CodeType, ModuleType

    Stamp = tuple[int, ...]
    Kept = tuple[str, bool, Stamp, CodeType]
    """The source's path, whether it is a package, its stamp, its code."""
else:
    from posix import environ as environb
    from posix import geteuid, stat  # `os` costs more, and is in the way of `import` anyhow.

    ModuleSpec = type(sys.__spec__)

PLACE = "/run/emupin/modules-"
SELDOM = "emupin.grammar"
"""Loaded for a changed policy alone: it would be in the way of all other calls."""

FORMAT = (sys.hexversion, __file__)
"""What a file must have been written by: byte code follows the interpreter."""

WRITABLE_BY_OTHERS = 0o022


class Bundle:
    """Finds and loads modules for `import`, ahead of Python's own ways."""

    def __init__(self, root: str, operation: str) -> None:
        self.path = root + PLACE + operation
        self.kept = _read(self.path)

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """None where the module as it is now is not in the file."""
        if name not in self.kept:
            return None
        source, is_package, stamp, _ = self.kept[name]
        if not stamp or _stamp(source) != stamp:
            return None
        spec = ModuleSpec(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(source.rpartition("/")[0])
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """A module of the usual type will do."""

    def exec_module(self, module: ModuleType) -> None:
        module.__file__, _, _, code = self.kept[module.__name__]
        exec(code, module.__dict__)

    def keep(self) -> None:
        """Leave the modules that Python had to look for to the next call. Raises OSError."""
        own = [name for name in sys.modules if name.startswith("emupin.") and not name.startswith(SELDOM)]
        specs = [sys.modules[name].__spec__ for name in own]
        found = [spec for spec in specs if spec and spec.name != __name__ and not isinstance(spec.loader, Bundle)]
        if not found:
            return
        import os

        from emupin.base.files import make_private_folder, replace_file

        make_private_folder(os.path.dirname(self.path))
        kept = {name: one for name, one in self.kept.items() if _stamp(one[0]) == one[2]}
        kept.update({spec.name: _entry(spec) for spec in found})
        replace_file(self.path, marshal.dumps((FORMAT, kept)), durable=False)


_bundle: Bundle | None = None


def use(operation: str) -> None:
    """Take modules from the file of the hook's `operation` from now on."""
    global _bundle
    gc.disable()  # A process of some milliseconds leaves nothing to collect.
    _bundle = Bundle(environb.get(b"EMUPIN_ROOT", b"").rstrip(b"/").decode(errors="surrogateescape"), operation)
    sys.meta_path.insert(0, _bundle)


def keep() -> None:
    """Leave to the next call what this one had to look for, if it uses the file. A cache: failing to is no trouble."""
    try:
        if _bundle:
            _bundle.keep()
    except OSError:
        return


def _entry(spec: ModuleSpec) -> Kept:
    """Raises OSError."""
    source = spec.origin or ""
    stamp = _stamp(source)
    code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    return source, spec.submodule_search_locations is not None, stamp, code


def _stamp(path: str) -> Stamp:
    """What changes whenever a file does, `st_ctime` even where its times were set; empty where there is none."""
    try:
        status = stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: str) -> dict[str, Kept]:
    """What the file has; nothing where it is missing, torn, another interpreter's, or others could have written it."""
    try:
        for place in (path.rpartition("/")[0], path):
            status = stat(place)
            if status.st_uid not in (0, geteuid()) or status.st_mode & WRITABLE_BY_OTHERS:
                return {}
        with open(path, "rb", buffering=0) as file:
            written_by, kept = marshal.loads(file.read() or b"")
    except (OSError, EOFError, ValueError, TypeError):
        return {}
    return kept if written_by == FORMAT else {}
