"""Traces on the page: drawn to one scale, as text where they are text, and seen in a browser."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import made_traces as made
import pytest
import year
from browser import PROGRAM, Browser
from command import emupin
from test_report import EVIL, Elements, rendered

from emupin.report.page import Page, Source
from emupin.report.traces import MOST, pictures
from emupin.trace import saved
from emupin.trace.thieves import KERNEL

if TYPE_CHECKING:
    from pathlib import Path

    from emupin.trace.result import Trace

BEFORE = made.trace(
    made.vcpu(1, made.theft("emulator", 370, 0.7), made.theft("", 10, 0.1, KERNEL, "kworker")), made.vcpu(2)
)
AFTER = made.trace(made.vcpu(1, made.theft("", 60, 0.6, KERNEL, "kworker")), made.vcpu(2), seconds=60.0, emulator="4")


def page_of(*traces: Trace) -> Page:
    return Page("emupin: audit report", "", "host", "", [Source("compute-1")], traces=pictures(traces))


def test_before_and_after_have_one_scale() -> None:
    before, after = pictures([BEFORE, AFTER])
    ((old,), (new,)) = before.bars, after.bars
    assert (old.ours, old.others) == (0.875, 0.125)
    assert (new.ours, new.others) == (0.0, 0.125), "a tenth of a second in ten seconds, and six of them in sixty"
    assert (before.quiet, after.quiet) == (2, 2)
    assert max(column.ours for column in before.columns) == 1.0
    assert {column.ours for column in after.columns} == {0.0}
    assert old.text == "38.0/s, 80.00 ms/s, ≤ 10 ms"


def test_a_trace_without_any_theft_has_no_bar() -> None:
    (picture,) = pictures([made.trace(made.vcpu(1))])
    assert (picture.bars, picture.quiet) == ((), 2)
    assert "<svg" in rendered(page_of(made.trace(made.vcpu(1))))


def test_of_many_vcpus_those_that_lost_most_are_drawn() -> None:
    vcpus = [made.vcpu(number, made.theft("emulator", number, number / 1e3)) for number in range(1, 100)]
    (picture,) = pictures([made.trace(*vcpus)])
    assert [bar.label.split(" ")[1] for bar in picture.bars] == [str(number) for number in range(100 - MOST, 100)]


def test_no_name_becomes_markup() -> None:
    evil = made.trace(made.vcpu(1, made.theft("vcpu", 100, 0.1, "another guest", EVIL, guest=EVIL)))
    text = rendered(page_of(evil))
    assert EVIL not in text
    assert EVIL in Elements(text).text, "the sentence names the guest"


def test_a_page_without_traces_is_as_before() -> None:
    assert "traces" not in {dict(attributes).get("id") for _, attributes in Elements(rendered(page_of())).tags}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    year.write_host(tmp_path, 0, 20)
    words: list[str] = []
    for name, trace in (("before", BEFORE), ("after", AFTER)):
        (tmp_path / f"{name}.json").write_text(json.dumps(saved.to_json(trace)))
        words += ["--trace", str(tmp_path / f"{name}.json")]
    done = emupin(tmp_path, "audit", "report", *words, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    return tmp_path / "page.html"


def test_the_command_puts_them_on_the_page(report: Path) -> None:
    text = Elements(report.read_text()).text
    assert "placement vcpu:0 would keep them off CPU 14" in text
    assert "No vCPU from 1 up lost its CPU to this guest's emulator threads in 60 s" in text
    assert set(re.findall(r"\w+://[^\"'\s]*", report.read_text())) == {"http://www.w3.org/2000/svg"}


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    year.write_host(tmp_path, 0, 5)
    (tmp_path / "x.json").write_text("{}")
    done = emupin(tmp_path, "audit", "report", "--trace", tmp_path / "x.json", "-o", tmp_path / "page.html")
    assert (done.returncode, b"is not a trace" in done.stderr, (tmp_path / "page.html").exists()) == (2, True, False)


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
def test_in_a_browser(report: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile")
    try:
        browser.look(1280, 1200)
        browser.open(report)
        assert browser.complaints == []
        assert browser.run("document.querySelectorAll('#traces figure').length") == 2
        bars = "[...document.querySelectorAll('#traces svg:first-of-type .ours')]"
        before, after = browser.run(f"{bars}.map((bar) => bar.getBoundingClientRect().width)")
        assert before > 50
        assert after == 0
        browser.look(400, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 400
    finally:
        browser.close()
