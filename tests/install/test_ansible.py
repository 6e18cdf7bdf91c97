"""The Ansible role and the fleet's playbook, run by the real ansible-playbook on throw-away nodes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from guests import Machine
from hosts import POLICY, Host, domain_xml
from roots import run, steps
from test_linters import need

CHECKOUT = Path(__file__).parents[2]
ANSIBLE = CHECKOUT / "deploy/ansible"
PROGRAMS = Path(sys.executable).parent

ROLE = f"""
export PATH={PROGRAMS}:$PATH ANSIBLE_NOCOLOR=1 ANSIBLE_PIPELINING=1
export ANSIBLE_ROLES_PATH=/tmp/given/deploy/ansible/roles LC_ALL=C.UTF-8
cat >/tmp/play.yml <<'TEXT'
- hosts: all
  gather_subset: ["!all", "!min", pkg_mgr, python]
  roles: [emupin]
TEXT
cat >/tmp/vars.yml <<'TEXT'
emupin_source: checkout
emupin_checkout: /tmp/given
emupin_policy: {{version: 1, rules: [{{name: nfv, match: {{flavor: "nfv.*"}}, placement: ["vcpu:0"]}}]}}
ansible_python_interpreter: /usr/bin/python3
TEXT
play() {{ ansible-playbook -i localhost, -c local /tmp/play.yml -e @/tmp/vars.yml "$@" || echo "failed with $?"; }}
there() {{
    find /etc/libvirt/hooks /etc/emupin /usr/local/lib/emupin /usr/local/src/emupin -type f 2>/dev/null | wc -l
}}
echo '#!/bin/sh' >/etc/libvirt/hooks/qemu
chmod +x /etc/libvirt/hooks/qemu
rm -rf /usr/local/src/emupin
daemon libvirtd
"""

LIFE = """
echo "== check on a bare node"
play --check --diff
there
echo "== first"
play --diff
reloads
cat /etc/emupin/policy.yaml
ls /etc/libvirt/hooks/qemu.d
echo "== second"
play
reloads
echo "== check afterwards"
play --check --diff
echo "== new policy"
sed 's/vcpu:0/pool/' /tmp/vars.yml >/tmp/new.yml
play --check --diff -e @/tmp/new.yml
echo "== broken policy"
sed 's/vcpu:0/vcpu:zero/' /tmp/vars.yml >/tmp/broken.yml
play -e @/tmp/broken.yml
cat /etc/emupin/policy.yaml
echo "== another policy and another checkout"
echo '{"version": 1, "rules": [{"name": "nfv", "placement": ["vcpu:0"]}]}' >/tmp/policy.json
touch /usr/local/src/emupin/src/emupin/gone.py
play -e '{"emupin_policy": {}, "emupin_policy_file": "/tmp/policy.json", "emupin_doctor": "false"}'
ls /etc/emupin
find /usr/local -name 'gone*'
echo "== back"
play
ls /etc/emupin
echo "== policy as text, and a play that knows nothing of the node"
cat >/tmp/text.yml <<'TEXT'
emupin_policy: |
  version: 1
  rules: [{name: nfv, match: {project: 0000012}, placement: ["vcpu:0"], checks: {smt: off}}]
TEXT
ANSIBLE_GATHERING=explicit ANSIBLE_INJECT_FACT_VARS=False play -e @/tmp/text.yml
tail -1 /etc/emupin/policy.yaml
echo "== removal of a package that was never there"
ANSIBLE_GATHERING=explicit ANSIBLE_INJECT_FACT_VARS=False play -e emupin_state=absent -e emupin_source=package
ls /etc/libvirt/hooks/qemu.d
echo "== check of removal"
play --check -e emupin_state=absent -e emupin_undo=false
there
echo "== removal"
play -e emupin_state=absent
reloads
there
cat /etc/emupin/policy.yaml
echo "== removal again"
play -e emupin_state=absent
ls /tmp
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    need("ansible-playbook")
    return steps(run(tmp_path_factory.mktemp("life"), CHECKOUT, ROLE + LIFE))


def recap(lines: list[str]) -> dict[str, int]:
    """The figures of the last line that Ansible prints."""
    line = next(line for line in lines if re.match(r"localhost +: ok=", line))
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


def test_ansible_lint_is_content() -> None:
    lint = [need("ansible-lint"), "--offline", "--nocolor", "--profile", "production", "."]
    done = subprocess.run(lint, cwd=ANSIBLE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_mode_works_on_a_node_that_lacks_everything_and_changes_nothing(life: dict[str, list[str]]) -> None:
    lines = life["check on a bare node"]
    figures = recap(lines)
    assert (figures["failed"], figures["unreachable"]) == (0, 0)
    assert figures["changed"] > 0
    assert lines[-1] == "1"  # the foreign hook


def test_the_role_installs_reloads_and_asks_doctor(life: dict[str, list[str]]) -> None:
    lines = life["first"]
    assert recap(lines)["failed"] == 0
    assert "50-emupin" in lines
    assert "1" in lines  # reloads
    assert any("name: nfv" in line for line in lines)
    assert any("Ask doctor" in line for line in lines)


@pytest.mark.parametrize("step", ["second", "check afterwards"])
def test_a_second_run_changes_nothing(step: str, life: dict[str, list[str]]) -> None:
    figures = recap(life[step])
    assert (figures["failed"], figures["changed"]) == (0, 0)


def test_check_mode_shows_a_new_policy_as_a_diff(life: dict[str, list[str]]) -> None:
    lines = life["new policy"]
    assert recap(lines)["changed"] == 1
    assert [line for line in lines if re.match(r"-\s+- vcpu:0", line)]
    assert [line for line in lines if re.match(r"\+\s+- pool", line)]


def test_a_broken_policy_never_replaces_the_one_in_force(life: dict[str, list[str]]) -> None:
    lines = life["broken policy"]
    assert recap(lines)["failed"] == 1
    assert any("failed to validate" in line and "not a list of vCPUs" in line for line in lines)
    assert lines[-1].strip() == "- vcpu:0"


def test_what_the_new_policy_and_the_new_checkout_do_not_have_is_gone(life: dict[str, list[str]]) -> None:
    lines = life["another policy and another checkout"]
    assert recap(lines)["failed"] == 0
    assert lines[-2:] == ["policy.json", "policy.yaml.example"]
    assert recap(life["back"])["failed"] == 0
    assert life["back"][-2:] == ["policy.yaml", "policy.yaml.example"]


def test_words_that_mean_no_are_no(life: dict[str, list[str]]) -> None:
    assert not any("Ask doctor" in line for line in life["another policy and another checkout"])
    lines = life["check of removal"]
    assert lines[lines.index(next(line for line in lines if "Take back the pins" in line)) + 1].startswith("skipping")


def test_removal_takes_everything_but_policy_trail_and_foreign_hook(life: dict[str, list[str]]) -> None:
    assert int(life["check of removal"][-1]) > 100
    assert recap(life["check of removal"])["changed"] == 2  # what install.sh has put, and the sources
    lines = life["removal"]
    assert recap(lines)["failed"] == 0
    assert any("name: nfv" in line for line in lines)
    figures = recap(life["removal again"])
    assert (figures["failed"], figures["changed"]) == (0, 0)
    assert not any(line.startswith("emupin-checkout.") for line in life["removal again"])


def test_a_policy_as_text_reaches_the_node_as_it_is_written(life: dict[str, list[str]]) -> None:
    lines = life["policy as text, and a play that knows nothing of the node"]
    assert recap(lines)["failed"] == 0
    assert "project: 0000012}" in lines[-1]
    assert "smt: off}" in lines[-1]


def test_what_was_installed_another_way_is_not_called_removed(life: dict[str, list[str]]) -> None:
    lines = life["removal of a package that was never there"]
    assert recap(lines)["failed"] == 1
    assert any("50-emupin was not installed with emupin_source: package; set the one" in line for line in lines)
    assert not any("Take back the pins" in line for line in lines)
    assert lines[-1] == "50-emupin"


# -- a fleet -----------------------------------------------------------------------------------------------------------

NODES = 20
NEW_POLICY = POLICY.replace("vcpu:0", "cpus:9")


COMMAND = f"env PYTHONPATH={CHECKOUT}/src {sys.executable} -m emupin"


def node(folder: Path, number: int) -> str:
    """A node with one guest, and its line of the inventory."""
    host = Host(folder / f"roots/node{number:02}")
    host.set_policy()
    Machine(host, "nfv-1", group="3" if number == 7 else "2")
    host.call("prepare", domain_xml(), "nfv-1")
    return f"node{number:02} fleet_command='env EMUPIN_ROOT={host.root} {COMMAND.removeprefix('env ')}'"


def collect(folder: Path, nodes: list[str], **values: str) -> str:
    """What the playbook said of these nodes; it fills the folder `all nodes` in `folder`."""
    for_all = ["[all:vars]", "ansible_connection=local", f"ansible_python_interpreter={sys.executable}"]
    (folder / "inventory").write_text("\n".join([*for_all, "[nodes]", *nodes]) + "\n")
    always = {
        "fleet_hosts": "nodes", "ansible_become": False, "fleet_folder": str(folder / "all nodes"),
        "fleet_local_command": COMMAND,
    }  # fmt: skip
    words = ["-i", str(folder / "inventory"), "-e", json.dumps({**always, **values}), str(ANSIBLE / "fleet.yml")]
    done = subprocess.run(
        [need("ansible-playbook"), *words, "--forks", "4"],
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Make one table" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the playbook has filled from twenty nodes, of which one cannot be asked; and what it said."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "new.yaml").write_text(NEW_POLICY)
    nodes = [*(node(folder, number) for number in range(1, NODES)), f"node{NODES:02} fleet_command=/bin/false"]
    return folder / "all nodes", collect(folder, nodes, fleet_policy=str(folder / "new.yaml"))


def test_every_node_is_collected_and_one_that_fails_does_not_stop_the_others(fleet: tuple[Path, str]) -> None:
    folder, said = fleet
    assert len(list(folder.glob("node*/node.json"))) == NODES - 1
    assert f'"{NODES} nodes, {NODES - 1} guests: drift 1, failed 0, changed {NODES - 1}, unplaced 0;' in said
    assert re.search(rf'"node{NODES}\b.*not collected', said)


def test_the_fleets_report_is_one_page(fleet: tuple[Path, str]) -> None:
    assert "</html>" in (fleet[0] / "report.html").read_text()


def test_what_cannot_be_collected_is_shown_stops_nothing_and_leaves_nothing_of_yesterday(tmp_path: Path) -> None:
    nowhere = "ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=9"  # discard: nobody listens
    nodes = [f"gone {nowhere}", "broken fleet_command=/bin/false", f"lost {nowhere}", node(tmp_path, 1)]
    for name in ("gone", "broken", "node01", "former"):
        old = tmp_path / "all nodes" / name / "node.json"
        old.parent.mkdir(parents=True)
        old.write_text('{"version": "0.1.0"}')
    (tmp_path / "all nodes/report.html").write_text("yesterday's")
    said = collect(tmp_path, nodes, fleet_serial="1", fleet_without_trails="true")
    for name in ("gone", "broken", "lost"):
        assert re.search(rf'"{name}\b.*not collected', said)
    assert '"5 nodes, 1 guests: ' in said
    assert "shown as they were collected last: former; remove the folders" in said
    assert not (tmp_path / "all nodes/report.html").exists()
