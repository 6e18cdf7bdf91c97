"""Nodes collected with `emupin collect`, and looked at together with `emupin fleet`."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from command import emupin
from guests import Machine
from hosts import POLICY, Host
from test_secrets import PLACES, SECRET

from emupin import __version__
from emupin.base.build import build
from emupin.base.errors import DomainError
from emupin.commands.fleet import HEADINGS
from emupin.engine.host import Host as Facts
from emupin.engine.plan import plan
from emupin.engine.situation import Others
from emupin.fleet.excerpt import excerpt
from emupin.grammar.policyfile import compile_policy
from emupin.guest.domainxml import read
from emupin.live.lookup import read_guest

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures/xml").glob("*.xml"))
EVERYTHING = """\
version: 1
host: {networking: kernel, pool: "0-63"}
rules:
  - name: flavor
    match: {flavor: "*", interface: vhostuser, pinned: true}
    placement: auto
    guest: dpdk
    iothreads: follow
  - {name: project, match: {project: "*"}, placement: ["vcpu:0", pool], checks: {numa: error}}
  - {name: rest, placement: [dedicated, pool]}
"""
CPUS = frozenset(range(64))
HOST = Facts(CPUS, frozenset(), frozenset(), {0: CPUS}, tuple(frozenset((cpu,)) for cpu in CPUS), (CPUS,))
NEW = POLICY.replace("vcpu:0", "cpus:9")


def decided(data: bytes, source: str) -> object:
    return plan(read(data, source), compile_policy(EVERYTHING.encode(), "policy"), HOST, Others())


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_an_excerpt_is_decided_like_the_whole(path: Path) -> None:
    data = path.read_bytes()
    try:
        whole = decided(data, path.name)
    except DomainError:
        return
    assert decided(excerpt(data, path.name), path.name) == whole


@pytest.mark.parametrize("text", [" nfv-1 ", "\t&amp;&#13;&#10;\n", " ", "<![CDATA[ <nfv> ]]>", "a<!-- b --> "])
def test_an_excerpt_has_texts_as_they_are(text: str) -> None:
    """libvirt takes names with blanks around them, and `match` compares what it is called with."""
    nova = "xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'"
    spec = f"<nova:extraSpecs><nova:extraSpec name='hw:x'>{text}</nova:extraSpec></nova:extraSpecs>"
    metadata = f"<metadata><nova:instance {nova}><nova:flavor name='f'>{spec}</nova:flavor></nova:instance></metadata>"
    resource = f"<resource><partition>{text}</partition></resource>"
    data = f"<domain type='kvm'><name>{text}</name>{metadata}{resource}<vcpu> 2\n</vcpu></domain>".encode()
    whole = read(data, "guest")
    assert whole.extra_specs == {"hw:x": whole.name}
    assert read(excerpt(data, "guest"), "guest").replace(layout=whole.layout) == whole


def test_an_excerpt_has_what_numad_chose() -> None:
    domain = "<domain type='kvm'><name>nfv-1</name><vcpu placement='auto'>2</vcpu></domain>"
    status = f"<domstatus state='running' pid='7'><numad nodeset='0' cpuset='2-3'/>{domain}</domstatus>".encode()
    assert read_guest(excerpt(status, "guest"), "guest").numad == read_guest(status, "guest").numad == frozenset((2, 3))


def test_an_excerpt_holds_no_secret() -> None:
    whole = f"<domain type='kvm'><name>nfv-1</name><vcpu>1</vcpu>{PLACES}</domain>"
    kept = excerpt(whole.encode(), "guest").decode()
    assert SECRET not in kept.replace(
        "s3cr3t-spec", ""
    )  # An extra spec is the operator's, and a policy may ask for it.
    assert 'interface type="vhostuser"' in kept


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The root folder of a node with two pretended guests, of which one drifted, and an audit trail."""
    host = Host(tmp_path / "root")
    host.set_policy()
    Machine(host, "nfv-1")
    Machine(
        host, "nfv-2", uuid="5a3f1d2c-7f0e-4c50-9a1b-000000000002", pid=5000, pin="3", group="3", stored="3", first=10
    )
    host.call("prepare", (host.root / "etc/libvirt/qemu/nfv-1.xml").read_bytes(), "nfv-1")
    return host.root


def collect(root: Path, folder: Path, *words: str) -> Path:
    """The folder of the node, as a playbook leaves it."""
    folder.mkdir(parents=True)
    archive = folder.parent / f"{folder.name}.tar.gz"
    done = emupin(root, "collect", "-o", archive, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder


def test_a_collection_has_the_nodes_own_answers_and_what_a_replay_needs(node: Path, tmp_path: Path) -> None:
    folder = collect(node, tmp_path / "fleet/node1")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"node.json", "host.json", "status.json", "doctor.json", "head", "var/log/emupin/audit.jsonl"} <= names
    assert sum(name.startswith("guests/") for name in names) == 2
    assert (tmp_path / "fleet/node1.tar.gz").stat().st_mode & 0o777 == 0o600
    done = emupin(tmp_path, "audit", "replay", folder / "var/log/emupin/audit.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [name for name in names if "hunter2" in (folder / name).read_text()]


def test_a_collection_without_its_trail_keeps_the_head(node: Path, tmp_path: Path) -> None:
    folder = collect(node, tmp_path / "fleet/node1", "--no-trail")
    (policy,) = (path for path in (folder / "var").rglob("*") if path.is_file())
    assert policy.stem == json.loads((folder / "status.json").read_text())["policy"]
    assert len((folder / "head").read_text().split()) == 3
    (tmp_path / "new.yaml").write_text(NEW)
    tried = ("fleet", "--json", "--policy", tmp_path / "new.yaml", tmp_path / "fleet")
    assert json.loads(emupin(tmp_path, *tried).stdout)["changed"] == 2
    policy.unlink()
    (trouble,) = json.loads(emupin(tmp_path, *tried).stdout)["troubles"]
    assert trouble.endswith("collect it again with `emupin collect`, or give --against")


def test_an_archive_that_is_there_is_not_overwritten(node: Path, tmp_path: Path) -> None:
    (tmp_path / "old.tar.gz").write_text("precious")
    done = emupin(node, "collect", "-o", tmp_path / "old.tar.gz")
    assert done.returncode == 2
    assert b"a file that is not there yet" in done.stderr
    assert (tmp_path / "old.tar.gz").read_text() == "precious"


def test_the_table_names_nodes_drift_versions_and_policies(node: Path, tmp_path: Path) -> None:
    collect(node, tmp_path / "fleet/node1")
    collect(node, tmp_path / "fleet/node2")
    (tmp_path / "fleet/node3").mkdir()
    done = emupin(tmp_path, "fleet", tmp_path / "fleet")
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    policy = json.loads((tmp_path / "fleet/node1/status.json").read_text())["policy"]
    assert lines[0].split() == list(HEADINGS)
    cells = lines[1].split()
    assert cells[:4] == ["node1", "2", "1", "0"]
    assert cells[6:] == [__version__, build(), policy[:12]]
    assert lines[3].split()[0] == "node3"
    assert "not collected" in lines[3]
    assert "3 nodes, 4 guests: drift 2, failed 0; nodes that need attention: 3" in lines
    assert f"policies: {policy[:12]} on 2" in lines
    assert b"node3: " in done.stderr
    assert b"collect it again" in done.stderr


def test_a_new_policy_is_tried_on_every_nodes_guests(node: Path, tmp_path: Path) -> None:
    collect(node, tmp_path / "fleet/node1")
    collect(node, tmp_path / "fleet/node2")
    (tmp_path / "new.yaml").write_text(NEW)
    done = emupin(tmp_path, "fleet", "--guests", "--json", "--policy", tmp_path / "new.yaml", tmp_path / "fleet")
    lines = done.stdout.decode().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(row["name"], row["changed"], row["unplaced"]) for row in rows] == [("node1", 2, 0), ("node2", 2, 0)]
    assert sum("old: nfv, vcpu:0" in line and "new: nfv, cpus:9" in line for line in lines) == 4


def test_the_policy_in_force_changes_nothing_and_an_impossible_one_leaves_guests_unplaced(
    node: Path, tmp_path: Path
) -> None:
    collect(node, tmp_path / "fleet/node1")
    for text, changed, unplaced in ((POLICY, 0, 0), (POLICY.replace("vcpu:0", "cpus:99"), 2, 2)):
        (tmp_path / "new.yaml").write_text(text)
        done = emupin(tmp_path, "fleet", "--json", "--policy", tmp_path / "new.yaml", tmp_path / "fleet")
        row = json.loads(done.stdout)
        assert (row["changed"], row["unplaced"]) == (changed, unplaced)


def test_attention_shows_only_the_nodes_that_need_it(node: Path, tmp_path: Path) -> None:
    collect(node, tmp_path / "fleet/node1")
    well = collect(node, tmp_path / "fleet/well")
    for name in ("status.json", "doctor.json"):
        form = json.loads((well / name).read_text())
        form.update({"problem": 0} if name == "doctor.json" else {"summary": {"guests": 2, "drift": 0}, "errors": []})
        (well / name).write_text(json.dumps(form))
    shown = emupin(tmp_path, "fleet", "--attention", tmp_path / "fleet").stdout.decode()
    assert "node1 " in shown
    assert "well " not in shown
    assert "nodes that need attention: 1" in shown


def test_a_damaged_collection_is_a_trouble_of_its_node_alone(node: Path, tmp_path: Path) -> None:
    collect(node, tmp_path / "fleet/node1")
    bad = collect(node, tmp_path / "fleet/node2")
    (bad / "status.json").write_text("{torn")
    (bad / "doctor.json").write_text("[]")
    done = emupin(tmp_path, "fleet", "--json", tmp_path / "fleet")
    assert done.returncode == 1
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["troubles"], first["guests"]) == ([], 2)
    assert (len(second["troubles"]), second["guests"]) == (2, None)


ODD = {
    "status.json": [
        '{"summary": []}', '{"guests": [{}, 5]}', '{"guests": [{"plan": 5}]}', '{"errors": 5}', '{"policy": 5}',
        '{"summary": {"guests": "12"}}', '{"summary": {"drift": -1}}', "[" * 100_000, "5", '{"guests": 1e999}',
    ],
    "node.json": ['{"version": 5}', '{"problems": 5}', '{"build": ["x"]}', "[" * 100_000],
    "doctor.json": ['{"problem": "1"}', '{"warning": true}', '{"warning": 1e400}', "[" * 100_000],
    "host.json": ["5", "[" * 100_000, '{"emupin_host": 1, "online": 5}'],
}  # fmt: skip


def test_json_of_another_shape_is_a_trouble_of_its_node_alone(node: Path, tmp_path: Path) -> None:
    good = collect(node, tmp_path / "fleet/good")
    odd = [(name, text) for name, texts in ODD.items() for text in texts]
    for number, (name, text) in enumerate(odd):
        bad = tmp_path / f"fleet/bad-{number:02}"
        shutil.copytree(good, bad)
        (bad / name).write_text(text)
    (tmp_path / "new.yaml").write_text(NEW)
    done = emupin(tmp_path, "fleet", "--json", "--policy", tmp_path / "new.yaml", tmp_path / "fleet")
    *bad_ones, good_one = map(json.loads, done.stdout.splitlines())
    assert (good_one["name"], good_one["troubles"], good_one["changed"]) == ("good", [], 2)
    assert [case for case, row in zip(odd, bad_ones) if len(row["troubles"]) != 1] == []
    assert done.returncode == 1


def test_what_is_no_file_is_not_waited_for(node: Path, tmp_path: Path) -> None:
    folder = collect(node, tmp_path / "fleet/node1")
    (folder / "status.json").unlink()
    for name in ("status.json", "guests/x.xml"):
        os.mkfifo(folder / name)
    (tmp_path / "new.yaml").write_text(NEW)
    row = json.loads(emupin(tmp_path, "fleet", "--json", "--policy", tmp_path / "new.yaml", tmp_path / "fleet").stdout)
    assert row["troubles"][0].endswith("is not a regular file; collect it again with `emupin collect`")


def test_no_node_controls_the_terminal(node: Path, tmp_path: Path) -> None:
    folder = collect(node, tmp_path / "fleet/node1")
    for name in ("status.json", "node.json"):
        form = json.loads((folder / name).read_text())
        form.update(dict.fromkeys(("policy", "version", "build"), "\x1b]0;owned\a"), problems=["\x1b[2J"])
        (folder / name).write_text(json.dumps(form))
    done = emupin(tmp_path, "fleet", tmp_path / "fleet")
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["/nowhere"], ["."]])
def test_a_folder_without_nodes_is_an_error(words: list[str], tmp_path: Path) -> None:
    done = emupin(tmp_path, "fleet", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert b"collect" in done.stderr


@pytest.mark.parametrize("option", [["--against", "/nonexistent"], ["--guests"]], ids=lambda words: words[0])
def test_what_goes_with_a_policy_is_an_error_without_one(option: list[str], tmp_path: Path) -> None:
    done = emupin(tmp_path, "fleet", *option, tmp_path)
    assert done.returncode == 2
    assert f"{option[0]} without --policy; name the policy to try".encode() in done.stderr
