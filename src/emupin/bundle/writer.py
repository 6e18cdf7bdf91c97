"""Writes the file that the hook's modules come from (see `loader`)."""

from __future__ import annotations
import __future__

import ast
import marshal
import os

from emupin.base.files import make_private_folder, replace_file
from emupin.bundle import loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec

    from emupin.bundle.loader import Kept

PIECE = 1 << 16
"""Bytes of modules that are read at once, or those of one that is longer."""


class _Bare(ast.NodeTransformer):
    """Takes out what only type checkers and the compiler read, but for the annotations of classes: a value's fields."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def entry(spec: ModuleSpec) -> Kept:
    """The module without docstrings and annotations, a sixth of its code, which nobody reads here. Raises OSError."""
    source = spec.origin or ""
    now = loader.stamp(source)
    tree = _Bare().visit(ast.parse(spec.loader.get_data(source)))  # type: ignore[union-attr]
    code = compile(tree, source, "exec", __future__.annotations.compiler_flag, dont_inherit=True, optimize=2)
    return source, spec.submodule_search_locations is not None, now, code


def write(path: str, usual: dict[str, Kept], others: dict[str, Kept]) -> None:
    """Write the file: the size of its head, the head, the `usual` modules in pieces, the others. Raises OSError."""
    pieces, rest = [marshal.dumps(piece) for piece in _pieces(usual)], marshal.dumps(others)
    head = marshal.dumps((loader.FORMAT, [len(piece) for piece in pieces], len(rest)))
    make_private_folder(os.path.dirname(path))
    replace_file(path, b"".join((b"%8d" % len(head), head, *pieces, rest)), durable=False)


def _pieces(modules: dict[str, Kept]) -> Iterator[dict[str, Kept]]:
    """`modules` in their order, in groups of about PIECE bytes."""
    piece: dict[str, Kept] = {}
    size = 0
    for name, kept in modules.items():
        piece[name] = kept
        size += len(marshal.dumps(kept))
        if size > PIECE:
            yield piece
            piece, size = {}, 0
    if piece:
        yield piece
