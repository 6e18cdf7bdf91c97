"""The JSON of a policy file, read into located text without any guess at types."""

from __future__ import annotations

import json
import re

from emupin.grammar.nodes import DEEPEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emupin.grammar.nodes import Tree

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]|[^][{},:"\s]+')
"""What opens, closes or holds a value, in text that is known to be JSON."""


def read(text: str, tree: Tree) -> None:
    """Let `tree` grow what `text` spells; nothing where it is empty. Raises PolicyError."""
    if not text.strip():
        return
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        tree.refuse(
            error.lineno, f"not JSON: {error.msg} (column {error.colno})", "run `python3 -m json.tool` to locate it"
        )
    except RecursionError:
        tree.refuse(1, "nested too deeply", f"a policy has no more than {DEEPEST} levels")
    line, position = 1, 0
    for token in TOKEN.finditer(text):
        line += text.count("\n", position, token.start())
        position = token.start()
        _add(token[0], line, tree)


def _add(token: str, line: int, tree: Tree) -> None:
    if token in ("{", "["):
        tree.start(line, token == "{")
    elif token in ("}", "]"):
        tree.end()
    else:
        tree.scalar(line, str(json.loads(token)) if token.startswith('"') else token)
