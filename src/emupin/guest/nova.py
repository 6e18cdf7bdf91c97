"""Nova's metadata of a guest: what the cloud's operator gave it, its flavor, its project and its extra specs.

Nova's elements are those in its namespace, whatever prefix stands for that and wherever it is declared. The display
name and the image's properties are the tenant's: neither text nor deeper elements of theirs are taken for anything.
"""

from __future__ import annotations

from emupin.base.frozen import Frozen
from emupin.guest.xmltree import NOTHING, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from emupin.guest.xmltree import Element

    Spaces = Mapping[str, str]
    """Namespaces by prefix; the one of names without a prefix by an empty text."""

NAMESPACE = "http://openstack.org/xmlns/libvirt/nova/1."
"""How the namespaces start: 1.0 up to Victoria, 1.1 since Wallaby."""


class Prefixed(dict):  # type: ignore[type-arg]
    """Elements that are wanted with any prefix: which of them are Nova's is seen when all are there."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.rpartition(":")[2], default)


SPECS = Prefixed(extraSpecs=Prefixed(extraSpec=TEXT))
WANTED = Prefixed(instance=Prefixed(flavor=SPECS, owner=Prefixed(project=NOTHING)))
"""Inside of `<metadata>`."""


class Nova(Frozen):
    """What Nova says; None for what it does not say."""

    flavor: str | None = None
    project: str | None = None
    """The UUID."""
    extra_specs: Mapping[str, str] | None = None
    """The flavor's, by name. Nova writes them since 2025.2."""


def read(domain: Element) -> Nova:
    """What the `<metadata>` of a `<domain>` holds, if it was WANTED; of several elements the first counts."""
    metadata = domain.first("metadata")
    if metadata is None:
        return Nova()
    spaces = _inside(metadata, _inside(domain, {}))
    flavor = next(_find(metadata, spaces, "instance", "flavor"), None)
    project = next(_find(metadata, spaces, "instance", "owner", "project"), None)
    listed = next(_find(metadata, spaces, "instance", "flavor", "extraSpecs"), None)
    specs = _find(metadata, spaces, "instance", "flavor", "extraSpecs", "extraSpec")
    return Nova(
        None if flavor is None else flavor.attributes.get("name", ""),
        None if project is None else project.attributes.get("uuid", ""),
        None if listed is None else {spec.attributes.get("name", ""): spec.text for spec in specs},
    )


def _find(outer: Element, spaces: Spaces, name: str, *path: str) -> Iterator[Element]:
    """Nova's elements at the path `name`, `*path` inside of `outer`, where `spaces` are declared."""
    for element in outer.children:
        inside = _inside(element, spaces)
        prefix, _, local = element.name.rpartition(":")
        if local == name and inside.get(prefix, "").startswith(NAMESPACE):
            if path:
                yield from _find(element, inside, *path)
            else:
                yield element


def _inside(element: Element, outer: Spaces) -> Spaces:
    """The namespaces that are declared inside of `element`."""
    names = [name for name in element.attributes if name.startswith("xmlns")]
    return {**outer, **{name[6:]: element.attributes[name] for name in names}} if names else outer
