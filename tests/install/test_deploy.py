"""What is shipped beside the packages: other doors into the engine, a CI job, metrics, and snippets that parse."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml
from command import AFTER, BEFORE, environment, guest, make_root
from test_linters import need

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"
CI = CHECKOUT / "examples/ci"


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a node with a policy where `emupin` is the checkout's."""
    command = tmp_path / "bin/emupin"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m emupin "$@"\n')
    command.chmod(0o755)
    root = make_root(tmp_path / "root")
    return {**environment(root), "PATH": f"{command.parent}:/usr/sbin:/usr/bin:/sbin:/bin"}


def run(*words: str | Path, env: dict[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, env=env, cwd=cwd, capture_output=True, check=False)


# -- VDSM: the name of a file in the environment, as vdsm's hooks.py calls its scripts ---------------------------------


def test_vdsm_finds_the_pin_in_the_file_that_it_named(node: dict[str, str], tmp_path: Path) -> None:
    domain = tmp_path / "tmpab12cd"
    domain.write_bytes(guest())
    domain.chmod(0o640)
    done = run(DEPLOY / "vdsm/50_emupin", env={**node, "_hook_domxml": str(domain), "vmId": "5a3f"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert domain.read_bytes() == guest().replace(BEFORE, AFTER)
    assert domain.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("data", [guest("other"), guest("bad-1"), b"<domain"], ids=["no-rule", "unplaced", "torn"])
def test_vdsm_starts_a_guest_that_is_not_placed_with_the_xml_it_had(
    data: bytes, node: dict[str, str], tmp_path: Path
) -> None:
    domain = tmp_path / "tmpab12cd"
    domain.write_bytes(data)
    assert run(DEPLOY / "vdsm/50_emupin", env={**node, "_hook_domxml": str(domain)}).returncode == 0
    assert domain.read_bytes() == data


# -- KubeVirt: words on the command line, the XML on stdout, as its sidecar-shim calls a script ------------------------


@pytest.mark.parametrize("data", [guest(), guest().rstrip(b"\n"), guest().replace(b"\n", b"\r\n")])
def test_kubevirt_gets_the_pin_and_no_other_byte(data: bytes, node: dict[str, str]) -> None:
    words = ("--vmi", '{"metadata": {"name": "nfv-1"}}', "--domain", data.decode())
    done = run(DEPLOY / "kubevirt/onDefineDomain", *words, env=node)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data.replace(BEFORE, AFTER)


def test_kubevirt_gets_what_it_gave_where_there_is_trouble(node: dict[str, str]) -> None:
    done = run(DEPLOY / "kubevirt/onDefineDomain", "--vmi", "{}", "--domain", "<domain", env=node)
    assert (done.returncode, done.stdout) == (0, b"<domain")


# -- a repository of policies ------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    (folder / "guests").mkdir(parents=True)
    (folder / "hosts").mkdir()
    (folder / "guests/nfv-1.xml").write_bytes(guest())
    shutil.copy(CHECKOUT / "fixtures/host/vm-2.json", folder / "hosts/small.json")
    shutil.copy(CHECKOUT / "fixtures/host/xeon-2x32-smt.json", folder / "hosts/large.json")
    (folder / "policy.yaml").write_text('version: 1\nrules: [{name: nfv, placement: ["vcpu:0"]}]\n')
    git = ("git", "-C", folder, "-c", "user.name=test", "-c", "user.email=test@example.org")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "policy")):
        subprocess.run([*git, *words], check=True)
    return folder


def test_the_job_leaves_a_page_for_each_host_and_says_what_changes(node: dict[str, str], repository: Path) -> None:
    (repository / "hosts/small.json").unlink()
    (repository / "policy.yaml").write_text('version: 1\nrules: [{name: nfv, placement: ["cpus:9"]}]\n')
    done = run(CI / "check-policy", env={**node, "BASE": "HEAD"}, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert b"old: nfv, vcpu:0: 4-5 -> 4 | new: nfv, cpus:9: 4-5 -> 9" in done.stdout
    assert b"+    <emulatorpin cpuset='9'/>" in (repository / "results/large.diff").read_bytes()
    assert "<html" in (repository / "results/large.html").read_text()


@pytest.mark.parametrize("base", ["origin/mian", "HEAD:policy.yaml"])
def test_the_job_fails_where_there_is_no_such_revision_to_compare_with(
    base: str, node: dict[str, str], repository: Path
) -> None:
    done = run(CI / "check-policy", env={**node, "BASE": base}, cwd=repository)
    assert done.returncode == 2
    assert f"check-policy: BASE={base}: git has no such revision\n".encode() in done.stderr


def test_the_job_compares_in_a_folder_of_a_repository_and_says_where_there_is_nothing_to_compare_with(
    node: dict[str, str], repository: Path
) -> None:
    (repository / "hosts/small.json").unlink()
    shutil.copytree(repository, repository / "eu", ignore=shutil.ignore_patterns(".git"))
    said = run(CI / "check-policy", env={**node, "BASE": "HEAD"}, cwd=repository / "eu").stdout
    assert b"HEAD has no policy.yaml: nothing to compare with\n" in said
    git = ("git", "-C", repository, "-c", "user.name=test", "-c", "user.email=test@example.org")
    for words in (("add", "."), ("commit", "--quiet", "-m", "another")):
        subprocess.run([*git, *words], check=True)
    (repository / "eu/policy.yaml").write_text('version: 1\nrules: [{name: nfv, placement: ["cpus:9"]}]\n')
    assert b"-> 9" in run(CI / "check-policy", env={**node, "BASE": "HEAD"}, cwd=repository / "eu").stdout


def test_the_job_fails_for_a_guest_that_gets_no_placement(node: dict[str, str], repository: Path) -> None:
    done = run(CI / "check-policy", env=node, cwd=repository)  # CPU 4 is not on the small host
    assert done.returncode == 1, done.stdout + done.stderr
    assert sorted(path.name for path in (repository / "results").glob("*.html")) == ["large.html", "small.html"]


def test_the_job_fails_for_an_invalid_policy(node: dict[str, str], repository: Path) -> None:
    (repository / "policy.yaml").write_text("version: 2\n")
    assert run(CI / "check-policy", env=node, cwd=repository).returncode == 1


@pytest.mark.parametrize("path", [CI / "gitlab-ci.yml", CI / "github-workflow.yml"], ids=lambda path: path.name)
def test_the_job_files_are_yaml_and_run_the_script(path: Path) -> None:
    assert yaml.safe_load(path.read_text())
    assert "./check-policy" in path.read_text()


# -- metrics and snippets ----------------------------------------------------------------------------------------------


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    units = [shutil.copy(path, tmp_path) for path in (CHECKOUT / "packaging/systemd").glob("*")]
    words = [need("systemd-analyze"), "verify", "--man=no", *map(str, units)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "emupin" in line]
    assert ours == []


def test_the_salt_state_is_yaml_with_states_that_require_each_other() -> None:
    text = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(
        (DEPLOY / "salt/emupin/init.sls").read_text()
    ).render()  # fmt: skip
    states = yaml.safe_load(text)
    assert {"pkg": "emupin"} in next(each["require"] for each in states["/etc/emupin/policy.yaml"]["file.managed"][-1:])


def test_the_puppet_class_parses() -> None:
    parser = pytest.importorskip("puppetparser.parser", reason="the module puppetparser is not installed")
    tree, _ = parser.parse((DEPLOY / "puppet/manifests/init.pp").read_text())
    assert len(tree) >= 1


def test_the_kubevirt_example_holds_a_valid_policy() -> None:
    from emupin.grammar.policyfile import compile_policy

    config, instance = yaml.safe_load_all((DEPLOY / "kubevirt/policy.yaml").read_text())
    assert [rule.name for rule in compile_policy(config["data"]["policy.yaml"].encode(), "ConfigMap").rules]
    assert "hookSidecars" in " ".join(instance["metadata"]["annotations"])


def test_every_door_of_the_page_is_there() -> None:
    for place in ("ansible/README.md", "puppet/manifests/init.pp", "salt/emupin/init.sls", "vdsm/50_emupin"):
        assert f"({place})" in (DEPLOY / "README.md").read_text()
        assert (DEPLOY / place).exists()
