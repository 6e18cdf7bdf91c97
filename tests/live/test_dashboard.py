"""The Grafana dashboard: whole, and asking only for what `emupin status --prometheus` exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import Machine
from hosts import Host

from emupin.live import survey
from emupin.live.prometheus import render

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana/emupin.json"
FROM_SCRAPE = {"instance"}
"""Labels that Prometheus adds."""
BUILT_IN = {"__rate_interval", "__all"}
SELECTOR = re.compile(r"(emupin_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'\s*(\w+)(?:=~|!~|!=|=)"[^"]*"\s*')
GROUPED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


@pytest.fixture
def exported(tmp_path: Path) -> dict[str, set[str]]:
    """The labels of each metric."""
    host = Host(tmp_path)
    host.set_policy()
    Machine(host)
    found: dict[str, set[str]] = {}
    for line in render(survey.take(str(tmp_path), [], None)).decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.partition("{")
            found.setdefault(name.split(" ")[0], set()).update(re.findall(r'(\w+)="', labels))
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_every_query_is_of_an_exported_metric_and_its_labels(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    for title, text in expressions(dashboard):
        selectors = SELECTOR.findall(text)
        assert selectors, title
        for metric, matchers in selectors:
            assert metric in exported, title
            for matcher in filter(None, matchers.split(",")):
                found = MATCHER.fullmatch(matcher)
                assert found, (title, matcher)
                assert found[1] in exported[metric] | FROM_SCRAPE, (title, matcher)
            for label in ",".join(GROUPED.findall(text)).split(","):
                assert not label.strip() or label.strip() in exported[metric] | FROM_SCRAPE, (title, label)


def test_legends_name_labels_that_the_query_keeps(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            kept = {label.strip() for group in GROUPED.findall(target["expr"]) for label in group.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_counters_are_only_used_as_rates(dashboard: dict[str, Any]) -> None:
    for title, text in expressions(dashboard):
        for found in re.finditer(r"emupin_\w+_total", text):
            assert text[: found.start()].endswith("rate("), title


def test_brackets_are_closed(dashboard: dict[str, Any]) -> None:
    for title, text in expressions(dashboard):
        plain = re.sub(r'"[^"]*"', "", text)
        assert all(plain.count(left) == plain.count(right) for left, right in ("()", "{}", "[]")), title


def test_every_variable_is_defined_and_every_panel_asks_the_chosen_source(dashboard: dict[str, Any]) -> None:
    defined = {each["name"] for each in dashboard["templating"]["list"]}
    text = json.dumps([dashboard["panels"], dashboard["templating"]])
    assert set(re.findall(r"\$\{?(\w+)", text)) <= defined | BUILT_IN
    for panel in dashboard["panels"]:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in sources), panel["title"]


def test_variables_are_read_from_exported_labels(dashboard: dict[str, Any], exported: dict[str, set[str]]) -> None:
    for each in dashboard["templating"]["list"]:
        if each["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["query"]["query"])
            assert found, each["name"]
            assert found[2] in exported[found[1]] | FROM_SCRAPE, each["name"]


def test_panels_have_their_own_ids_and_places(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
