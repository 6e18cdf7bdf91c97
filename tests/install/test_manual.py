"""The man pages: every command and option, every key of the policy, and nothing that groff stumbles over."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_linters import need

from emupin import __version__
from emupin.cli import COMMANDS
from emupin.engine.host import Host
from emupin.engine.situation import Others
from emupin.grammar.policyfile import compile_policy
from emupin.grammar.schema import KEYS
from emupin.guest.domainxml import read
from emupin.live.prometheus import LASTING, render
from emupin.live.survey import Survey
from emupin.trail.entries import facts
from emupin.trail.form import DECIDED, DECIDING, DECISION, EVERY, FAILED, OTHERS, RECORD

PACKAGING = Path(__file__).parents[2] / "packaging"
POLICY_PAGE = PACKAGING / "man/emupin-policy.5"


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("man") / "emupin.8"
    done = subprocess.run([sys.executable, "-B", PACKAGING / "manual.py"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    path.write_bytes(done.stdout)
    return path


def shown(path: Path) -> str:
    """The page as a terminal shows it."""
    words = [need("groff"), "-ww", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-rLL=200n", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_command_is_in_the_manual_with_its_options_and_statuses(manual: Path) -> None:
    text = shown(manual)
    assert f"emupin {__version__}" in text
    for command in COMMANDS:
        assert re.search(rf"^ +emupin {command}\b", text, re.MULTILINE), command
    for option in ("--in-place", "--prometheus", "--against OLD", "--head HASH"):
        assert option in text.replace("\N{HYPHEN}", "-")


def test_the_manual_tells_of_every_metric(manual: Path) -> None:
    told, heads = shown(manual), render(Survey(())).decode().splitlines()
    names = [line.split()[2] for line in heads if line.startswith("# TYPE")]
    assert len(names) > 20
    for name in names:
        group = next((f"emupin_{word}_" for word in LASTING if name.startswith(f"emupin_{word}_")), "")
        assert group + "counter" * bool(group) in told, name
        assert name[len(group) :] in told, name


def test_the_manual_tells_of_every_field_of_the_audit_trail(manual: Path) -> None:
    section = manual.read_text().partition(".SH AUDIT TRAIL\n")[2].partition("\n.SH ")[0]
    told = set(re.findall(r"[a-z][a-z_0-9]+", section))
    guest = read(b"<domain><name>a</name></domain>", "test")
    fields = {key for keys in (EVERY, DECISION, DECIDED, RECORD, *OTHERS.values()) for key in keys}
    fields |= {*facts(guest, Host(frozenset((0,))), Others())} | {"left", "previous", "vhost"}
    outcomes = {"rewritten", "decided", "unchanged", "enforced", "recorded", *FAILED}
    assert (fields | {*DECIDING, *OTHERS} | outcomes) - told == set()


def test_the_manual_is_plain_ascii_and_does_not_depend_on_the_terminal(manual: Path) -> None:
    assert manual.read_bytes().isascii()
    again = subprocess.run(
        [sys.executable, "-B", PACKAGING / "manual.py"],
        capture_output=True, check=True, env={"COLUMNS": "40", "LC_ALL": "C", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert again.stdout == manual.read_bytes()


def test_the_policy_page_tells_of_every_key_check_and_placement() -> None:
    shown(POLICY_PAGE)
    told = set(re.findall(r"^\.BR? ([a-z_]+)", POLICY_PAGE.read_text(), re.MULTILINE))
    assert {key for keys in KEYS.values() for key in keys} - told == set()


def test_the_example_of_the_policy_page_is_valid() -> None:
    example = POLICY_PAGE.read_text().partition(".SH EXAMPLE\n.nf\n")[2].partition(".fi")[0].replace("\\-", "-")
    assert [rule.name for rule in compile_policy(example.encode(), "example").rules] == ["nfv", "routers"]


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_no_mistake(manual: Path) -> None:
    for page in (manual, POLICY_PAGE):
        done = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "error", page], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")
