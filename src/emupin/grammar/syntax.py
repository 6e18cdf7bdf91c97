"""The syntax of a policy file: YAML or JSON, read into located text without any guess at types.

YAML is read event by event, not composed: tags, aliases and nesting are judged by the tree and cannot cost anything.
"""

from __future__ import annotations

import re

from emupin.base.errors import PolicyError
from emupin.grammar.nodes import QUOTE, Tree, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

    import yaml

    from emupin.grammar.nodes import Node

LARGEST = 1024 * 1024
"""Bytes; a larger file is refused."""


def load(data: bytes, source: str) -> Node:
    """The content of a policy file; JSON where `source`, its name, ends in `.json`, else YAML.

    Raises PolicyError for anything but one plain document: bad syntax, duplicate keys, tags, recursion, odd characters.
    """
    text = _decode(data, source)
    tree = Tree(source)
    if source.endswith(".json"):
        from emupin.grammar import jsonsyntax

        jsonsyntax.read(text, tree)
    else:
        _read_yaml(text, tree)
    return tree.root or tree.refuse(1, "is empty", "a policy begins with `version: 1`")


def _decode(data: bytes, source: str) -> str:
    if len(data) > LARGEST:
        raise PolicyError(source, "larger than 1 MiB", "a policy is a few kilobytes: wrong file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{source}:{line}", "is not UTF-8", "convert it with `iconv -t UTF-8`") from None
    found = re.search("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise PolicyError(f"{source}:{line}", f"holds the control character {found[0]!r}", "remove it")
    return text


def _read_yaml(text: str, tree: Tree) -> None:
    yaml = _pyyaml(tree.source)
    try:
        loader = yaml.BaseLoader(text)
    except yaml.reader.ReaderError as error:
        tree.refuse(text.count("\n", 0, error.position) + 1, "holds a character that YAML forbids", "remove it")
    try:
        while loader.check_event():
            _add_yaml(loader.get_event(), tree, yaml)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tree.refuse(mark.line + 1 if mark else 1, f"not YAML: {_problem(error)}", _cure(error))
    except (ValueError, OverflowError):  # PyYAML gives whatever digits it finds to chr() and int().
        what = "not YAML: the number in an escape such as \\U0010FFFF or in a line that begins with % is too large"
        tree.refuse(loader.line + 1, what, "write the character itself; remove the line that begins with %")


def _pyyaml(source: str) -> types.ModuleType:
    try:
        import yaml
    except ImportError:
        hint = (
            "install python3-yaml (Debian, Ubuntu) or python3-pyyaml (RHEL, Fedora), or write the policy as policy.json"
        )
        raise PolicyError(source, "reading YAML needs PyYAML, which this Python does not have", hint) from None
    return yaml


def _add_yaml(event: yaml.Event, tree: Tree, yaml: types.ModuleType) -> None:
    line = event.start_mark.line + 1 if event.start_mark else 1
    tag: str | None = getattr(event, "tag", None)
    if tag:
        tree.refuse(line, f"the tag {show(tag)!r} is not allowed", f"values are typed by their key: remove it; {QUOTE}")
    if isinstance(event, yaml.ScalarEvent):
        tree.scalar(line, event.value, event.anchor)
    elif isinstance(event, yaml.CollectionStartEvent):
        tree.start(line, isinstance(event, yaml.MappingStartEvent), event.anchor)
    elif isinstance(event, yaml.CollectionEndEvent):
        tree.end()
    elif isinstance(event, yaml.AliasEvent):
        tree.alias(line, event.anchor)
    elif isinstance(event, yaml.DocumentStartEvent) and tree.root:
        tree.refuse(line, "a second document begins", "a policy is one document: remove the line `---`")


def _problem(error: yaml.MarkedYAMLError) -> str:
    words = f"{error.problem or 'unknown'}" + (f" {error.context}" if error.context else "")
    return "".join(char if char.isprintable() else " " for char in words[:200])


def _cure(error: yaml.MarkedYAMLError) -> str:
    if "\\t" in (error.problem or ""):
        return "indent YAML with spaces, never with tabs"
    if "mapping values are not allowed" in (error.problem or ""):
        return f"check the indentation of this line and the one before; {QUOTE}"
    if "expected ',' or" in (error.problem or ""):
        return f"a list or mapping in brackets ends before this line, or it is not closed; {QUOTE}"
    if "YAML document" in (error.problem or ""):
        return "remove the line that begins with %"
    return QUOTE
