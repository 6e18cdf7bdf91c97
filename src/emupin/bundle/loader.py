"""Loads the hook's modules from one file: to find and open forty of them would cost a third of what a call may.

The files, `run/emupin/modules-OPERATION`, are a cache like the compiled policy beside them, each with just what its
operation needs. A call that had to look for modules in the library leaves their code there for later ones (`writer`).
Code counts only as long as its source is the very same file and unchanged, which one `stat` tells; anything else is
looked for where Python looks.

Python's own machinery takes as long to import a module as the module takes. So what a usual call needs is loaded ahead
of it, module by module, in the order in which an earlier call was done with them: each finds loaded what it imports. A
usual call is one that found all it needed in the file; the first of them says what is needed.
"""

# Without `from __future__ import annotations`: to find that module would cost a hundredth of a call.
import gc
import marshal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from os import environb, geteuid, stat
    from types import CodeType
    from types import ModuleType as Module

    Stamp = tuple[int, ...]
    Kept = tuple[str, bool, Stamp, CodeType]
    """The source's path, whether it is a package, its stamp, its code."""
else:
    from posix import environ as environb
    from posix import geteuid, stat  # `os` costs more, and is in the way of `import` anyhow.

    ModuleSpec = type(sys.__spec__)
    Module = type(sys)

PLACE = "/run/emupin/modules-"
PACKAGE = "emupin"
SELDOM = ("emupin.grammar", "emupin.bundle.writer")
"""Loaded for a changed policy or library alone: they would be in the way of all other calls."""

FORMAT = (sys.hexversion, __file__)
"""What a file must have been written by: byte code follows the interpreter."""

WRITABLE_BY_OTHERS = 0o022

MOST_SECONDS = 1.0
"""Of the processor: a call that has taken more leaves no file. To write it takes five times as long as to do without,
and a call is killed at its limit.
"""


class Bundle:
    """Loads modules ahead of Python's own ways, and what is needed now and then when `import` asks for it."""

    def __init__(self, root: str, operation: str) -> None:
        self.path = root + PLACE + operation
        self.usual, self._rest = _read(self.path)
        self._others: dict[str, Kept] | None = None
        self.loaded: dict[str, Kept] = {}

    @property
    def others(self) -> "dict[str, Kept]":
        """What is not usual, unpacked once somebody asks for it."""
        if self._others is None:
            self._others = marshal.loads(self._rest)
        return self._others

    def load_usual(self) -> None:
        """Load what every call needs, but for what is in a package that has changed: Python looks for that.

        They get no `__spec__`: it would take as long as the check that a file is unchanged, and tells Python only that
        a module is loaded, which it takes for granted without one.
        """
        for name, kept in self.usual.items():
            package, _, last = name.rpartition(".")
            source, is_package, _, _ = kept
            if name not in sys.modules and (not package or package in sys.modules) and _is_unchanged(kept):
                module = sys.modules[name] = Module(name)
                module.__loader__, module.__package__ = self, name if is_package else package  # type: ignore[assignment]
                if is_package:
                    module.__path__ = [source.rpartition("/")[0]]
                self.exec_module(module)
                if package:
                    setattr(sys.modules[package], last, module)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> "ModuleSpec | None":
        """None where the module as it is now is not in the file."""
        kept = self.others.get(name) if _is_ours(name) else None
        return self._spec(name, kept) if kept and _is_unchanged(kept) else None

    def create_module(self, _spec: "ModuleSpec") -> None:
        """A module of the usual type will do."""

    def exec_module(self, module: "Module") -> None:
        """Run its code."""
        name = module.__name__
        self.loaded[name] = kept = self.usual.get(name) or self.others[name]
        module.__file__, _, _, code = kept
        exec(code, module.__dict__)

    def found(self) -> "list[ModuleSpec]":
        """The modules that Python had to look for."""
        ours = [module.__spec__ for name, module in sys.modules.items() if _is_ours(name) and name not in self.loaded]
        return [spec for spec in ours if spec]

    def keep(self, found: "list[ModuleSpec]") -> None:
        """Leave the modules that Python had to look for to later calls; the next says anew what is usual.

        Raises OSError, and SyntaxError for a library that is being changed.
        """
        from emupin.bundle import writer

        others = {**self.usual, **self.others, **{spec.name: writer.entry(spec) for spec in found}}
        usual = {} if found else {name: others.pop(name) for name in sys.modules if name in self.loaded}
        writer.write(self.path, usual, others)

    def _spec(self, name: str, kept: "Kept") -> "ModuleSpec":
        source, is_package, _, _ = kept
        spec = ModuleSpec(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(source.rpartition("/")[0])
        return spec


_bundle: "Bundle | None" = None


def use(operation: str) -> None:
    """Take modules from the file of the hook's `operation` from now on."""
    global _bundle
    gc.disable()  # A process of some milliseconds leaves nothing to collect.
    _bundle = Bundle(environb.get(b"EMUPIN_ROOT", b"").rstrip(b"/").decode(errors="surrogateescape"), operation)
    sys.meta_path.insert(0, _bundle)
    _bundle.load_usual()


def found() -> "list[ModuleSpec]":
    """What this call had to look for."""
    return _bundle.found() if _bundle else []


def keep(found: "list[ModuleSpec]") -> None:
    """Leave to later calls what was `found`, if there is a file. A cache: failing to is no trouble.

    A usual call ends at once: what it wrote to would be copied from the recording process that began as its copy.
    """
    try:
        if _bundle and (found or not _bundle.usual) and time.process_time() < MOST_SECONDS:
            _bundle.keep(found)
    except (OSError, MemoryError, ImportError, SyntaxError):  # The library may be replaced, or go, meanwhile.
        return


def _is_ours(name: str) -> bool:
    """Whether the file is to have the module."""
    return name.partition(".")[0] == PACKAGE and name != __name__ and not name.startswith(SELDOM)


def _is_unchanged(kept: "Kept") -> bool:
    source, _, then, _ = kept
    return bool(then) and stamp(source) == then


def stamp(path: str) -> "Stamp":
    """What changes whenever a file does, `st_ctime` even where its times were set; empty where there is none."""
    try:
        status = stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: str) -> "tuple[dict[str, Kept], bytes]":
    """What a usual call needs, and the rest, packed.

    Nothing where the file is missing, torn, another interpreter's, or others could have written it. It is read in
    pieces: the memory of one serves the next, and new memory is what takes the time.
    """
    nothing = marshal.dumps({})
    usual: dict[str, Kept] = {}
    try:
        for place in (path.rpartition("/")[0], path):
            status = stat(place)
            if status.st_uid not in (0, geteuid()) or status.st_mode & WRITABLE_BY_OTHERS:
                return {}, nothing
        with open(path, "rb", buffering=0) as file:
            written_by, sizes, rest = marshal.loads(file.read(int(file.read(8))))
            if written_by != FORMAT:
                return {}, nothing
            for size in sizes:
                usual.update(marshal.loads(file.read(size)))
            packed = file.read(rest)
    except (OSError, EOFError, ValueError, TypeError):
        return {}, nothing
    return (usual, packed) if len(packed) == rest else ({}, nothing)
