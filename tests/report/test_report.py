"""The page: escaped, self-contained, and at work in a real browser where there is one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import suites
import year
from browser import PROGRAM, Browser
from command import POLICY, emupin, guest, make_root

from emupin.commands.audit_report import make
from emupin.report.island import COLUMNS, DETAILS, PIECE, Islands
from emupin.report.page import Page, Source, render
from emupin.report.row import row
from emupin.trail.replay import NO_DECISION, Replayed
from emupin.trail.sources import find_trails

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVIL = "<script>alert(1)</script>"


class Elements(HTMLParser):
    """The elements of a page, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and self.cdata_elem:
            self.scripts[-1] += data
        else:
            self.text += data


def rendered(page: Page) -> str:
    return "".join(render(page))


def page_of(*entries: dict[str, Any], host: str = "compute-1") -> Page:
    source = Source(host)
    page = Page("emupin: audit report", "", "host", "", [source])
    for entry in entries:
        page.add(source, row(entry, host, "audit.jsonl:1", Replayed(NO_DECISION)))
    return page


@pytest.mark.parametrize(
    "text", [EVIL, "</script><!--", "<!--<script>", "&lt;b&gt;", "' onload='alert(1)", "]]>", "\u2028x"]
)
def test_no_text_of_an_entry_becomes_markup(text: str) -> None:
    keys = ("time", "host", "op", "uuid", "name", "rule", "placement", "before", "after", "reason", "outcome", "emupin")
    entry = {**dict.fromkeys(keys, text), "warnings": [text], "diff": [text], "policy": text, "facts": {"online": text}}
    page = page_of(entry, host=text)
    page.problems.append(text)
    plain, evil = Elements(rendered(page_of({}))), Elements(rendered(page))
    harmless = [tag for tag, _ in evil.tags if tag not in ("details", "summary", "ul", "li", "div", "a", "dt", "dd")]
    assert harmless == [
        tag for tag, _ in plain.tags if tag not in ("details", "summary", "ul", "li", "div", "a", "dt", "dd")
    ]
    assert not any(name.startswith("on") for _, attributes in evil.tags for name in attributes)
    index = json.loads(next(script for script in evil.scripts if script.startswith('{"piece"')))
    shown = text.replace("\u2028", "\\u2028")
    assert index["texts"][index["columns"]["name"][0]] == shown


@pytest.mark.parametrize("value", [None, 7, [], {}, "\ud800", "\x00\x1b[2J", ["\x07"], {"a": []}, "x" * 100_000])
def test_entries_of_whatever_shape_have_a_row(value: object) -> None:
    keys = ("time", "op", "name", "uuid", "rule", "warnings", "diff", "facts", "policy", "before", "sha256_after")
    made = row(dict.fromkeys(keys, value), "host", "place", Replayed(NO_DECISION))
    assert made.keys() == {*COLUMNS, *DETAILS}
    rendered(page_of(dict.fromkeys(keys, value))).encode()


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = rendered(page_of({"name": "nfv-1"}))
    assert set(re.findall(r"\w+://[^\"'\s]*", text)) == {"http://www.w3.org/2000/svg"}
    elements = Elements(text)
    assert not any({"src", "srcset", "style"} & attributes.keys() for _, attributes in elements.tags)
    assert not {tag for tag, _ in elements.tags} & {"link", "img", "iframe", "object", "base"}
    policy = next(str(each["content"]) for tag, each in elements.tags if tag == "meta" and "http-equiv" in each)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for ours in (elements.scripts[0], elements.scripts[-1]):
        digest = base64.b64encode(hashlib.sha256(ours.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_islands_give_back_what_went_in() -> None:
    islands = Islands()
    rows = [{name: f"{name} {number % 7}" for name in (*COLUMNS, *DETAILS)} for number in range(PIECE + 3)]
    for each in rows:
        islands.add(each)
    islands.finish()
    index, pieces = json.loads(islands.index({})), [json.loads(piece) for piece in islands.pieces]
    back = [
        {
            **{name: index["texts"][index["columns"][name][at]] for name in COLUMNS},
            **dict(zip(DETAILS, [pieces[at // PIECE]["values"][n] for n in pieces[at // PIECE]["rows"][at % PIECE]])),
        }
        for at in range(len(rows))
    ]
    assert back == rows


def test_without_jinja_the_command_says_so(tmp_path: Path) -> None:
    year.write_host(tmp_path, 0, 5)
    (tmp_path / "jinja2.py").write_text("raise ImportError('not here')\n")
    done = emupin(tmp_path, "audit", "report", cwd=tmp_path)  # -m puts the current folder first.
    assert done.returncode == 2
    assert b"needs Jinja2" in done.stderr
    assert not (tmp_path / "report.html").exists()


def test_a_trail_that_was_changed_is_shown_as_such(tmp_path: Path) -> None:
    path = year.write_host(tmp_path / "one", 0, 50)
    year.write_host(tmp_path / "two", 1, 50)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:20] + lines[21:]))
    page = make(find_trails([str(tmp_path)], ""), [])
    assert [source.chain for source in page.sources] == ["not whole", "whole"]
    assert any("audit.jsonl:20" in finding for finding in page.sources[0].findings)
    assert "1 with a trail that is not whole" in Elements(rendered(page)).text


# -- rewrite --report -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = make_root(tmp_path / "root", policy=POLICY)
    (root / "guests").mkdir()
    for name in ("nfv-1", "nfv-2", "bad-1", "warned-1", "web-1"):
        (root / "guests" / f"{name}.xml").write_bytes(guest(name))
    (root / "guests/evil.xml").write_bytes(guest("nfv-&lt;script>alert(1)&lt;/script>"))
    (root / "guests/broken.xml").write_bytes(b"<domain>")
    return root


def test_a_preview_shows_every_file(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    plain = emupin(folder, "rewrite", "--diff", folder / "guests")
    done = emupin(folder, "rewrite", "--diff", "--report", page, folder / "guests")
    assert (done.returncode, done.stdout, done.stderr) == (2, plain.stdout, plain.stderr)
    elements = Elements(page.read_text())
    index = json.loads(next(script for script in elements.scripts if script.startswith('{"piece"')))
    outcomes = [index["texts"][number] for number in index["columns"]["outcome"]]
    assert sorted(outcomes) == ["failed", "rewritten", "rewritten", "rewritten", "rewritten", "unchanged"]
    assert "1 problem" in elements.text
    assert "broken.xml" in elements.text
    assert len([each for each in index["texts"] if each and EVIL in each]) == 1


@pytest.mark.parametrize("args", [[], ["--in-place"], ["--diff", "-"]])
def test_a_preview_is_of_files_that_are_only_looked_at(folder: Path, args: list[str]) -> None:
    files = [] if "-" in args else [folder / "guests/nfv-1.xml"]
    done = emupin(folder, "rewrite", "--report", "page.html", *args, *files)
    assert done.returncode == 2
    assert b"--report" in done.stderr


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if PROGRAM is None:
        if suites.IN_CI:
            pytest.fail("chromium is missing; tests/run.sh installs it")
        pytest.skip("chromium is not installed")
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fleet = year.write_fleet(tmp_path_factory.mktemp("fleet"), 4, 800)
    trails = find_trails([str(fleet)], "")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(rendered(make(trails, [])))
    return path


@pytest.fixture
def opened(browser: Browser, report: Path) -> Browser:
    browser.look(1280, 1200)
    browser.send("Page.navigate", url="about:blank")
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(report)
    return browser


def test_the_browser_fetches_nothing_and_complains_of_nothing(opened: Browser, report: Path) -> None:
    opened.go("q=nfv")
    opened.press("ArrowDown")
    assert opened.requests == [f"file://{report}"]
    assert opened.complaints == []
    assert opened.text("#count") == "800 decisions" or opened.text("#count").endswith("of 800")


def test_filters_and_search(opened: Browser) -> None:
    opened.go("outcome=rewritten&q=router")
    shown, of, total = opened.text("#count").split()
    assert (of, total) == ("of", "800")
    names = opened.run("[...document.querySelectorAll('.row .c-name')].map((cell) => cell.textContent)")
    assert names
    assert all("router" in name for name in names)
    assert len(names) == min(int(shown), len(names))
    outcomes = opened.run("[...new Set([...document.querySelectorAll('.row .c-outcome')].map((c) => c.textContent))]")
    assert outcomes == ["rewritten"]
    opened.go("q=nothing-has-this-name")
    assert opened.text("#count").startswith("0 of")
    assert "Nothing passes" in opened.text("#detail")
    opened.go("since=2026-06-01&until=2026-07-01&sort=time")
    times = opened.run("[...document.querySelectorAll('.row .c-time')].map((cell) => cell.textContent)")
    assert times == sorted(times)
    assert times[0].startswith("2026-06-01")


def test_typing_filters(opened: Browser) -> None:
    opened.press("/")
    opened.send("Input.insertText", text="router")
    opened.run("new Promise((done) => setTimeout(done, 300))")
    assert opened.text("#count").endswith("of 800")
    assert "q=router" in opened.run("location.hash")


def test_the_keyboard_moves_and_the_details_follow(opened: Browser) -> None:
    opened.run("document.getElementById('grid').focus()")
    first = opened.text("#detail")
    opened.press("ArrowDown")
    second = opened.text("#detail")
    opened.press("End")
    last = opened.text("#detail")
    opened.press("Home")
    assert opened.text("#detail") == first
    assert len({first, second, last}) == 3
    chosen = opened.run(
        "document.getElementById(document.getElementById('grid').getAttribute('aria-activedescendant')).ariaSelected"
    )
    assert chosen == "true"
    opened.press("Enter")
    assert opened.run("document.activeElement.id") == "detail"


def test_a_change_is_shown_with_diff_checks_and_picture(opened: Browser) -> None:
    opened.go("outcome=rewritten&rule=nfv")
    assert "emulatorpin cpuset=" in opened.text("#diff")
    assert re.fullmatch(r"[\d,-]+", opened.text("#diff mark"))
    assert "passed: online" in opened.text("#placements")
    count = opened.run("document.querySelectorAll('#picture [data-cpu]').length")
    titles = opened.run("[...document.querySelectorAll('#picture title')].map((each) => each.textContent)")
    assert len(titles) == count > 30
    for words in ("vCPU 0 of this guest", "the emulator threads come", "reserved", "pool"):
        assert any(words in title for title in titles), words
    assert opened.run("document.querySelector('#picture').getBoundingClientRect().height") > 50


def test_a_guest_named_like_a_script_stays_text(opened: Browser) -> None:
    opened.go("q=" + "%3Cscript%3Ealert(1)")
    assert EVIL in opened.text("#detail h2")
    opened.go("q=" + "%3C!--")
    assert "</script><!--" in opened.text("#detail h2")
    assert opened.complaints == []


def test_dark_narrow_and_printed(opened: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(background)
    opened.look(1280, 1200, "dark")
    assert opened.run(background) != light
    opened.look(400, 800, "light")
    assert opened.run("document.documentElement.scrollWidth") <= 400
    opened.look(1280, 1200)
    assert opened.pdf().startswith(b"%PDF")
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run("document.querySelectorAll('#printed tbody tr').length") == 800
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run("document.getElementById('printed').hidden")


def test_a_preview_in_the_browser(browser: Browser, folder: Path, tmp_path: Path) -> None:
    emupin(folder, "rewrite", "--check", "--report", tmp_path / "page.html", folder / "guests")
    browser.complaints.clear()
    browser.open(tmp_path / "page.html", "#outcome=rewritten&q=warned")
    assert browser.text("#detail h2") == "warned-1"
    assert "vcpu_overlap (warn): vCPU 1 runs on CPU 5" in browser.text("#placements")
    assert browser.complaints == []


LEADING = 6
"""Pixels of a text's box that no glyph of it reaches."""


def test_the_picture_of_a_host_with_two_cpus(browser: Browser, tmp_path: Path) -> None:
    """Its title is wider than its CPUs: nothing is cut off, and no text lies on another."""
    root = make_root(tmp_path / "root", online="0-1", policy=POLICY)
    (root / "nfv-1.xml").write_bytes(guest("nfv-1").replace(b"'5'", b"'1'").replace(b"'4'", b"'0'"))
    emupin(root, "rewrite", "--check", "--report", tmp_path / "page.html", root / "nfv-1.xml")
    browser.open(tmp_path / "page.html", "#")
    boxes = browser.run(
        "[...document.querySelectorAll('#picture text')].map((each) => each.getBoundingClientRect())"
        ".map((box) => [box.left, box.top, box.right, box.bottom])"
    )
    drawn = browser.run(
        "(({left, right}) => [left, right])(document.querySelector('#picture').getBoundingClientRect())"
    )
    assert len(boxes) >= 5
    assert all(drawn[0] <= left and right <= drawn[1] + 1 for left, _, right, _ in boxes)
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            apart = (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] + LEADING or other[3] <= one[1] + LEADING
            )
            assert apart, (one, other)
