"""The page itself: Jinja2 around style, script and data, written as it is made."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emupin import __version__
from emupin.base import cpuset, output
from emupin.base.errors import EmupinError
from emupin.base.text import printable
from emupin.engine.host import to_json
from emupin.report import traces
from emupin.report.island import Islands

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from emupin.engine.host import Host
    from emupin.policy.values import Policy
    from emupin.report.traces import Picture

MODE = 0o600
"""It tells what the audit trail does."""

SCRIPTS = ("base.js", "list.js", "detail.js", "picture.js", "page.js")

FOLDER = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Source:
    """One host of an audit, and what is known of its trail."""

    name: str
    entries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    replays: Counter[str] = field(default_factory=Counter)
    warnings: int = 0
    first: str = ""
    last: str = ""
    chain: str = ""
    """In a few words; `chain_is_whole` says whether that is good."""
    chain_is_whole: bool = True
    findings: tuple[str, ...] = ()
    """What is wrong with the chain, or with reading it."""

    def count(self, row: Mapping[str, Any]) -> None:
        self.entries += 1
        self.outcomes[row["outcome"] or "?"] += 1
        self.replays[row["replay"]] += 1
        self.warnings += bool(row["warnings"])
        if row["time"]:
            self.first, self.last = self.first or row["time"], row["time"]


@dataclass
class Page:
    """All that the page shows."""

    title: str
    subject: str
    """What the page is of, in a sentence."""
    host_label: str
    """What the column `host` is."""
    made: str
    """When, RFC 3339; nothing on a page that must not depend on the time."""
    sources: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be read."""
    notes: list[str] = field(default_factory=list)
    """What is to be said of all of it."""
    islands: Islands = field(default_factory=Islands)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    topologies: dict[str, Any] = field(default_factory=dict)
    traces: tuple[Picture, ...] = ()
    """Before and after, say: who took vCPUs' CPUs."""

    def add(self, source: Source, row: dict[str, Any]) -> None:
        """Show one decision of `source`."""
        source.count(row)
        self.islands.add(row)

    def add_all(self, rows: Iterable[dict[str, Any]], problems: Iterable[str]) -> None:
        """Show more of the one source of a preview, and what could not be read."""
        for row in rows:
            self.add(self.sources[0], row)
        self.problems.extend(map(printable, problems))

    def keep_policy(self, policy: Policy, text: str) -> None:
        if policy.digest not in self.policies:
            shown = "\n".join(map(printable, text.splitlines()))
            pool = cpuset.format(policy.pool or ())
            self.policies[policy.digest] = {"reserved": cpuset.format(policy.reserved), "pool": pool, "text": shown}

    def keep_host(self, digest: str, host: Host) -> None:
        if digest not in self.topologies:
            self.topologies[digest] = to_json(host)

    @property
    def outcomes(self) -> Counter[str]:
        return sum((source.outcomes for source in self.sources), Counter())

    @property
    def replays(self) -> Counter[str]:
        return sum((source.replays for source in self.sources), Counter())


def check_jinja() -> None:
    """See that Jinja2 is there before any work is done. Raises EmupinError."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        hint = "install python3-jinja2 (the same name on Debian, Ubuntu, Fedora and RHEL)"
        raise EmupinError("emupin", "a report needs Jinja2, which is not installed", hint) from None


def write(page: Page, path: str) -> None:
    """Write the page where `-o PATH` says. Raises EmupinError."""
    with output.opened(path, MODE) as file:
        file.writelines(piece.encode() for piece in render(page))


def render(page: Page) -> Iterator[str]:
    """The page in pieces."""
    import jinja2
    from markupsafe import Markup

    page.islands.finish()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    style, script = _asset("page.css"), _script()
    facts = {"policies": page.policies, "topologies": page.topologies, "hostLabel": page.host_label}
    # Style and script are ours, and the data is encoded so that no text of a guest can end its element.
    yield from environment.get_template("page.html").generate(
        page=page,
        emupin=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        index=Markup(page.islands.index(facts)),
        pieces=map(Markup, page.islands.pieces),
        width=traces.WIDTH,
        label=traces.LABEL,
        room=traces.ROOM,
        row=traces.ROW,
        high=traces.HIGH,
    )


def _asset(name: str) -> str:
    with open(f"{FOLDER}/{name}", encoding="utf-8") as file:
        return file.read()


def _script() -> str:
    """All parts in one scope of their own."""
    return '"use strict";\n(() => {\n' + "".join(map(_asset, SCRIPTS)) + "})();\n"


def _hash(text: str) -> str:
    """What a content security policy knows a script or a style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
