"""A second opinion on a rewrite, by another parser: lxml (libxml2) with libvirt's own schema."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from lxml import etree

from emupin.base import cpuset
from emupin.base.errors import EmupinError

if TYPE_CHECKING:
    Document = etree._ElementTree
    Element = etree._Element

SCHEMA = "/usr/share/libvirt/schemas/domain.rng"
REPORT = "nothing was written; please report this document as a bug"


def validate(
    before: bytes, after: bytes, cpus: frozenset[int], source: str, schema: str = SCHEMA, follow: bool = False
) -> list[str]:
    """Prove that `after` is a valid domain XML and differs from `before` in `<emulatorpin>` alone, which names `cpus`.

    If the iothreads `follow`, every `<iothreadpin>` may differ too. Gives remarks on what could not be proved. Raises
    EmupinError where something is wrong.
    """
    old, new = _parse(before, source), _parse(after, source)
    found = [pin.get("cpuset", "") for pin in new.findall("cputune/emulatorpin")]
    if len(found) != 1 or cpuset.parse(found[0]) != cpus:
        raise EmupinError(source, f"the result pins to {found}, not to {cpuset.format(cpus)}", REPORT)
    remarks = _check_schema(old, new, source, schema)
    pins = ("emulatorpin", "iothreadpin") if follow else ("emulatorpin",)
    if _comparable(old, pins, False) != _comparable(new, pins, old.find("cputune") is None):
        raise EmupinError(source, "the result differs from the original in more than <emulatorpin>", REPORT)
    return remarks


def _parse(data: bytes, source: str) -> Document:
    """Names that are wrong only as namespaces go are no error of libvirt's: `recover` keeps them as they are."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True, recover=True)
    hint = "run `xmllint --noout` to locate it"
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise EmupinError(source, f"libxml2 does not read it: {error.msg}", hint) from None
    wrong = [each.message for each in parser.error_log if each.domain_name != "NAMESPACE"]
    if wrong:
        raise EmupinError(source, f"libxml2 does not read it: {wrong[0]}", hint)
    return etree.ElementTree(root)


def _check_schema(old: Document, new: Document, source: str, path: str) -> list[str]:
    if not os.path.exists(path):
        return [f"{source}: not checked against libvirt's schema, {path} is not installed"]
    schema = _schema(path)
    if schema.validate(new):
        return []
    complaint = schema.error_log.last_error
    found = complaint.message if complaint is not None else "no reason given"
    if schema.validate(old):
        raise EmupinError(source, f"the result is not valid by libvirt's schema: {found}", REPORT)
    return [f"{source}: was not valid by libvirt's schema before either: {found}"]


def _comparable(document: Document, pins: tuple[str, ...], added_cputune: bool) -> str:
    """The document printed anew, without `pins`, nor the blanks between elements where one may have been put in.

    With `added_cputune` also without a `<cputune>` that held nothing else. Canonical XML would have the attributes in
    an order of its own, which nobody changes; and it refuses relative namespaces, which Unraid's guests have.
    """
    root = document.getroot()
    for tune in root.findall("cputune"):
        for pin in [child for name in pins for child in tune.findall(name)]:
            _take_out(tune, pin)
        _drop_blanks(tune)
        if added_cputune and not len(tune) and not tune.text:
            _take_out(root, tune)
    _drop_blanks(root)
    return etree.tostring(document, encoding="unicode")


def _take_out(parent: Element, child: Element) -> None:
    """Remove `child` and leave the text behind it."""
    before = child.getprevious()
    if before is None:
        parent.text = (parent.text or "") + (child.tail or "")
    else:
        before.tail = (before.tail or "") + (child.tail or "")
    child.tail = None
    parent.remove(child)


def _drop_blanks(parent: Element) -> None:
    if not (parent.text or "").strip():
        parent.text = None
    for child in parent:
        if not (child.tail or "").strip():
            child.tail = None


@lru_cache
def _schema(path: str) -> etree.RelaxNG:
    try:
        return etree.RelaxNG(file=path)
    except (etree.RelaxNGParseError, etree.XMLSyntaxError) as error:
        raise EmupinError(path, f"is not a schema: {error}", "reinstall libvirt's packages") from None
