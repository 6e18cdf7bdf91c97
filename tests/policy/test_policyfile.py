"""The policy file: each complaint has a golden file beside its cause; what is valid means the same however written."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emupin.base import cpuset
from emupin.base.errors import PolicyError
from emupin.base.files import policy_path
from emupin.commands import policy as command
from emupin.engine.checks import CHECKS
from emupin.grammar.policyfile import compile_policy, problems
from emupin.grammar.policytext import render, render_json
from emupin.policy.values import Match, Placement, Policy, Rule

if TYPE_CHECKING:
    from conftest import Golden

POLICIES = Path(__file__).parent / "policies"
FULL = POLICIES / "good" / "full.yaml"
SUFFIXES = (".yaml", ".json")


def files(kind: str) -> list[Path]:
    return sorted(path for path in (POLICIES / kind).iterdir() if path.suffix in SUFFIXES)


def compile_text(text: str, source: str = "policy.yaml") -> Policy:
    return compile_policy(text.encode(), source)


@pytest.mark.parametrize("path", files("bad"), ids=lambda path: path.name)
def test_complaints(path: Path, golden: Golden) -> None:
    found = problems(path.read_bytes(), path.name)
    golden(path.with_name(path.name + ".err"), "".join(f"{problem}\n" for problem in found).encode() or None)
    with pytest.raises(PolicyError) as error:
        compile_policy(path.read_bytes(), path.name)
    assert str(error.value) == str(found[0])
    assert all(str(problem).isprintable() and len(str(problem)) < 500 for problem in found)


def test_what_is_wrong_with_json_is_said_in_the_words_of_its_parser() -> None:
    """They, and the place, differ from one Python to the next."""
    text = '{"version": 1,\n "rules": [],\n}\n'
    (found,) = problems(text.encode(), "policy.json")
    with pytest.raises(json.JSONDecodeError) as error:
        json.loads(text)
    wrong = error.value
    assert str(found).startswith(f"policy.json:{wrong.lineno}: not JSON: {wrong.msg} (column {wrong.colno}); ")


@pytest.mark.parametrize("path", files("good"), ids=lambda path: path.name)
def test_good_policies_written_out(path: Path, golden: Golden) -> None:
    policy = compile_policy(path.read_bytes(), path.name)
    golden(path.with_name(path.name + ".out"), render(policy).encode())
    assert Policy.from_plain(policy.to_plain()) == policy
    assert compile_text(render(policy)).replace(digest="") == policy.replace(digest="")
    assert compile_text(render_json(policy), "policy.json").replace(digest="") == policy.replace(digest="")


def test_full_policy_means() -> None:
    policy = compile_policy(FULL.read_bytes(), "full.yaml")
    assert (policy.networking, policy.on_failure) == ("ovs-dpdk", "refuse")
    assert (policy.reserved, policy.pool) == (frozenset((0, 1, 32, 33)), frozenset((2, 3, 34, 35)))
    rule = policy.rules[0]
    assert rule.match.uuid == ("5a3f0c1d-2233-4455-6677-88990aabbccd", "5a3f*")
    assert [placement.word for placement in rule.placement[:4]] == ["auto", "dedicated", "dedicated", "pool"]
    assert [placement.number for placement in rule.placement] == [None, 2, 1, None, None, None, None]
    assert (rule.checks["numa"], rule.checks["smt"], set(rule.checks)) == ("error", "off", set(CHECKS))
    assert (rule.on_failure, rule.persist, rule.follow_iothreads) == ("start", False, True)
    assert policy.rules[1].match == Match()
    assert policy.rules[1].on_failure == "refuse"


@pytest.mark.parametrize(
    "pattern",
    [
        "5a3f*", "*", "**", "5A3F0C1D-*", "*aabbccd", "*-2233-*", "????????-????-????-????-????????????", "[5-7]a[!0]*",
        "5a3f0c1d[-]*", "[]5]*", "*[!g]", "5a3f0c1d-2233-4455-6677-88990aabbccd*", "*0*1*2*3*",
    ],
)  # fmt: skip
def test_a_pattern_that_some_uuid_fits(pattern: str) -> None:
    text = f'{{version: 1, rules: [{{name: a, match: {{uuid: "{pattern}"}}, placement: keep}}]}}'
    assert compile_text(text).rules[0].match.uuid == (pattern.lower(),)


def test_a_project_is_written_as_nova_writes_it() -> None:
    """Where it looks like one of Nova's."""
    others = "[0123456789012345678901234567E890-x, 0C1D*, 0C1D-5B7E, Telco]"
    text = "{version: 1, rules: [{name: a, match: {project: %s}, placement: keep}]}"
    for project in ("0C1D5B7E9A2F4C6D8E0F1A2B3C4D5E6F", "0c1d5b7e-9a2f-4c6d-8e0f-1a2b3c4d5e6f"):
        assert compile_text(text % project).rules[0].match.project == ("0c1d5b7e9a2f4c6d8e0f1a2b3c4d5e6f",)
    assert compile_text(text % others).rules[0].match.project == tuple(others.strip("[]").split(", "))


def test_yaml_does_not_guess() -> None:
    policy = compile_policy((POLICIES / "good" / "guesses.yaml").read_bytes(), "guesses.yaml")
    rule = policy.rules[0]
    assert (policy.reserved, policy.pool) == (frozenset((34,)), frozenset((10,)))
    assert rule.name == "off"
    assert rule.match.name == ("no", "1:20", "0x10", "1e3", "~", "null", "2024-01-01", ".5")
    assert rule.match.project == ("00012345",)


def test_a_directive_with_endless_digits() -> None:
    """Some Pythons read them; those say that the version is not theirs, or is taken."""
    for version in ("9" * 5000 + ".1", "1." + "9" * 5000):
        for problem in problems(f"\n%YAML {version}\n---\nversion: 1\nrules: []\n".encode(), "policy.yaml"):
            assert str(problem).startswith("policy.yaml:2: not YAML: ")
            assert str(problem).endswith("remove the line that begins with %")


def test_too_large() -> None:
    with pytest.raises(PolicyError, match="larger than 1 MiB"):
        compile_policy(b"#" * (1024 * 1024 + 1), "policy.yaml")


def test_byte_order_mark_and_line_ends() -> None:
    text = FULL.read_text()
    same = compile_policy(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "policy.yaml")
    assert same.replace(digest="") == compile_text(text).replace(digest="")


def test_digest_is_sha256_of_the_bytes() -> None:
    data = b"version: 1\nrules: []\n"
    assert compile_policy(data, "policy.yaml").digest == hashlib.sha256(data).hexdigest()


def without_site_packages(source: str) -> subprocess.CompletedProcess[str]:
    """Compile an empty policy named `source` with the standard library alone."""
    code = f"from emupin.grammar.policyfile import problems; print(*problems(b'{{}}', {source!r}), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    return subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_without_pyyaml() -> None:
    told = without_site_packages("p.yaml").stdout
    assert told.startswith("p.yaml: reading YAML needs PyYAML")
    assert "python3-yaml" in told
    assert "policy.json" in told
    assert "the key 'version' is missing" in without_site_packages("p.json").stdout


# -- properties -------------------------------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp", "Zs")), min_size=1).filter(
    lambda text: not {"[", "\\"} & set(text) and text.isprintable()
)
PATTERNS = st.none() | st.lists(PRINTABLE, min_size=1, max_size=3, unique=True).map(tuple)
UUIDS = st.none() | st.lists(st.uuids().map(str) | st.just("5a?f*"), min_size=1, max_size=3, unique=True).map(tuple)
LEVELS = st.sampled_from(("error", "warn", "off"))
CPUS = st.frozensets(st.integers(0, cpuset.HIGHEST), min_size=1, max_size=8)


def placements() -> st.SearchStrategy[Placement]:
    return st.one_of(
        CPUS.map(lambda vcpus: Placement("vcpu", text=f"vcpu:{cpuset.format(vcpus)}", vcpus=vcpus)),
        st.just(Placement("vcpu", text="vcpu:non-realtime")),
        CPUS.map(lambda cpus: Placement("cpus", cpus=cpus, text=f"cpus:{cpuset.format(cpus)}")),
        st.sampled_from([Placement("dedicated", 1, None, "dedicated"), Placement("pool", None, None, "pool")]),
        st.just(Placement("auto", None, None, "auto")),
    )


@st.composite
def rules(draw: st.DrawFn, name: str) -> Rule:
    flags = st.none() | st.booleans()
    interface = draw(st.sampled_from([None, ("vhostuser",), ("bridge", "v*")]))
    name_to_project = draw(PATTERNS), draw(UUIDS), draw(PATTERNS), draw(PATTERNS)
    match = Match(*name_to_project, interface, draw(flags), draw(st.booleans()))
    levels = {name: "error" if check.fixed else draw(LEVELS) for name, check in CHECKS.items()}
    placement = [*draw(st.lists(placements(), max_size=4, unique=True)), Placement("keep", None, None, "keep")]
    words = draw(st.sampled_from(("start", "refuse"))), draw(st.booleans()), draw(st.booleans())
    apart = tuple(each for each in draw(st.lists(placements(), max_size=2, unique=True)) if each.word != "auto")
    return Rule(name, match, tuple(placement), levels, draw(st.sampled_from(("dpdk", "kernel"))), *words, apart)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    names = draw(st.lists(PRINTABLE, max_size=3, unique=True))
    networking = draw(st.sampled_from(("ovs-dpdk", "kernel")))
    on_failure = draw(st.sampled_from(("start", "refuse")))
    return Policy("", networking, frozenset(), draw(CPUS), on_failure, tuple(draw(rules(name)) for name in names))


@given(policies())
def test_written_out_compiles_to_the_same(policy: Policy) -> None:
    assert compile_text(render(policy)).replace(digest="") == policy
    assert compile_text(render_json(policy), "policy.json").replace(digest="") == policy
    assert yaml.safe_load(render(policy)) == json.loads(render_json(policy))


@given(policies(), st.data())
def test_mutations_raise_nothing_but_policy_errors(policy: Policy, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(("policy.yaml", "policy.json")))
    text = (render_json(policy) if source.endswith(".json") else render(policy)).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + data.draw(PIECES) + text[end:]
    for problem in problems(text, source):
        assert isinstance(problem, PolicyError)
        assert str(problem).isprintable(), repr(str(problem))


PIECES = st.binary(max_size=4) | st.sampled_from(
    [
        b"\n",
        b"\t",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"&a ",
        b"*a",
        b"!x ",
        b"'",
        b'"',
        b"---\n",
        b"\0",
        b"? ",
        b"|\n",
        b"<<",
    ]
)


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode), st.sampled_from(SUFFIXES))
def test_noise_raises_nothing_but_policy_errors(data: bytes, suffix: str) -> None:
    assert problems(data, "policy" + suffix)


# -- the command ------------------------------------------------------------------------------------------------------


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["policy", *argv])
    status: int = args.run(args)
    return status


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty host's root folder, in force for the command."""
    monkeypatch.setenv("EMUPIN_ROOT", str(tmp_path))
    (tmp_path / "etc" / "emupin").mkdir(parents=True)
    return tmp_path


def write_policy(root: Path, text: str, name: str = "policy.yaml") -> Path:
    path = root / "etc" / "emupin" / name
    path.write_text(text)
    return path


def test_check_valid(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_policy(root, "version: 1\nrules: [{name: a, placement: keep}]\n")
    assert run("check") == 0
    assert capfd.readouterr() == (f"{path}: ok, 1 rule\n", "")


def test_check_takes_the_file_as_an_argument(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_policy(root, "version: 1\nrules: [{name: a, placement: keep}]\n", "new.yaml")
    assert run("check", str(path)) == run("check", "--policy", str(path)) == run("show", str(path)) == 0
    assert capfd.readouterr().out.startswith(f"{path}: ok, 1 rule\n" * 2)
    with pytest.raises(PolicyError, match="give one of the two"):
        run("check", str(path), "--policy", str(path))


def test_check_prints_every_problem(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--policy", str(POLICIES / "bad" / "several.yaml")) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) >= 6


def test_show(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_policy(root, '{"version": 1, "rules": [{"name": "a", "placement": "vcpu:0"}]}', "policy.json")
    assert run("show") == 0
    shown = yaml.safe_load(capfd.readouterr().out)
    assert run("show", "--json") == 0
    assert json.loads(capfd.readouterr().out) == shown
    assert shown["rules"][0]["placement"] == ["vcpu:0"]


def test_show_invalid(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_policy(root, "version: 2\nrules: []\n")
    assert run("show") == 1
    assert "version: is not 1" in capfd.readouterr().err


def test_no_policy_two_policies_and_unreadable(root: Path) -> None:
    assert policy_path(str(root)) is None
    with pytest.raises(PolicyError, match="there is no policy"):
        run("check")
    path = write_policy(root, "version: 1\nrules: []\n")
    assert policy_path(str(root)) == str(path)
    write_policy(root, "{}", "policy.json")
    with pytest.raises(PolicyError, match="remove one of them"):
        run("check")
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        run("show", "--policy", str(root / "none.yaml"))


def test_an_installed_policy_is_trusted_as_the_hook_trusts_it(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_policy(root, "version: 1\nrules: []\n")
    elsewhere = write_policy(root, "version: 1\nrules: []\n", "new.yaml")
    for place in (path, path.parent):
        mode = place.stat().st_mode
        place.chmod(0o777)
        for argv in (("check",), ("show",), ("check", str(path))):
            with pytest.raises(PolicyError, match=re.escape(f"{place}: is writable by others (mode 777); `chmod")):
                run(*argv)
        elsewhere.chmod(0o666)
        assert run("check", str(elsewhere)) == 0
        place.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 12345, 0)
        with pytest.raises(PolicyError, match="belongs to user 12345"):
            run("check")
    assert capfd.readouterr() == (f"{elsewhere}: ok, 0 rules\n" * 2, "")
