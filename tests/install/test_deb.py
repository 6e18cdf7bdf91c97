"""The Debian package: built from a commit, and installed, upgraded, removed and purged by the real dpkg."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import debpackage
import pytest
import suites
from roots import run, steps
from test_linters import need

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, and with the same one as an older version, `old.deb`."""
    suites.need("a package", suites.missing((*debpackage.PROGRAMS, "lintian")))
    folder = tmp_path_factory.mktemp("packages")
    built = debpackage.build(folder)
    built.older.rename(folder / "old.deb")
    built.current.rename(folder / "emupin.deb")
    return folder


def test_lintian_is_content(packages: Path) -> None:
    strict = ["--fail-on", "error,warning,info,pedantic", "--display-info", "--pedantic", "--allow-root"]
    done = subprocess.run(
        ["lintian", *strict, packages / "emupin.deb"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_it_ships_no_hook_no_byte_code_and_root_only_state(packages: Path) -> None:
    listing = subprocess.run(
        ["dpkg", "--contents", packages / "emupin.deb"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    assert "libvirt/hooks" not in listing  # dpkg would leave 50-emupin.dpkg-new there, which libvirt runs
    assert "__pycache__" not in listing
    assert "drwx------ root/root         0" in next(
        line for line in listing.splitlines() if line.endswith("log/emupin/")
    )


LIFE = """
trap 'cat /var/log/dpkg.log | tail -3' EXIT
echo '#!/bin/sh' >/etc/libvirt/hooks/qemu
chmod +x /etc/libvirt/hooks/qemu
daemon libvirtd
state() { dpkg-query --show --showformat '${db:Status-Status}\n' emupin; }
echo "== install"
dpkg --install /tmp/given/old.deb
ls /etc/libvirt/hooks/qemu.d
reloads
find /usr/lib/emupin -name '*.pyc' | wc -l
find /usr/lib/emupin -name '*.py' | wc -l
echo "version: 1" >/etc/emupin/policy.yaml
echo "# mine" >>/etc/logrotate.d/emupin
ln -s /usr/lib/emupin/emupin /tmp/library
echo "== upgrade"
dpkg --install /tmp/given/emupin.deb </dev/null
ls /etc/libvirt/hooks/qemu.d
reloads
cat /etc/emupin/policy.yaml
tail -n 1 /etc/logrotate.d/emupin
ls /usr/lib/emupin/emupin/older.py || echo "no older.py"
emupin --version
cmp /etc/libvirt/hooks/qemu.d/50-emupin /usr/share/emupin/hook && echo "hook as shipped"
echo "== another copy"
sh "$checkout/install.sh" >/dev/null
mkdir -p /run/emupin
touch /run/emupin/claims /var/log/emupin/audit.jsonl
dpkg --remove emupin
ls /run/emupin/claims
dpkg --purge emupin
ls /run/emupin/claims /etc/emupin/policy.yaml /var/log/emupin/audit.jsonl
dpkg --install /tmp/given/emupin.deb >/dev/null
echo "== a copy that lost its hook to the package"
cmp /etc/libvirt/hooks/qemu.d/50-emupin /usr/share/emupin/hook && echo "the package's hook"
dpkg --purge emupin
ls /etc/libvirt/hooks
ls /run/emupin/claims /etc/emupin/policy.yaml /var/log/emupin/audit.jsonl
sh "$checkout/install.sh" --uninstall >/dev/null
dpkg --install /tmp/given/emupin.deb >/dev/null
reloads >/dev/null
echo "== called off"
mkdir -p /tmp/rival/DEBIAN
cat >/tmp/rival/DEBIAN/control <<'TEXT'
Package: rival
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: takes emupin's place
Conflicts: emupin
Replaces: emupin
Provides: emupin
TEXT
printf '#!/bin/sh\nexit 1\n' >/tmp/rival/DEBIAN/preinst
chmod +x /tmp/rival/DEBIAN/preinst
dpkg-deb --build /tmp/rival >/dev/null
dpkg --auto-deconfigure --install /tmp/rival.deb || state
cmp /etc/libvirt/hooks/qemu.d/50-emupin /usr/share/emupin/hook && echo "hook as shipped"
find /usr/lib/emupin -name '*.pyc' | wc -l
find /usr/lib/emupin -name '*.py' | wc -l
reloads >/dev/null
echo "== what cannot be removed"
mkdir -p /run/emupin/busy
mount -t tmpfs tmpfs /run/emupin/busy
dpkg --remove emupin
state
ls -A /etc/libvirt/hooks
umount /run/emupin/busy
dpkg --install /tmp/given/emupin.deb >/dev/null
reloads >/dev/null
echo "== remove"
figures=/var/lib/prometheus/node-exporter/emupin.prom
mkdir -p "${figures%/*}"
touch "$figures"
systemctl enable emupin-metrics.path
mkdir -p /run/emupin
touch /run/emupin/claims
dpkg --remove emupin
ls -A /etc/libvirt/hooks
reloads
ls -d /run/emupin || echo "no /run/emupin"
ls "$figures" || echo "no figures"
ls /etc/systemd/system/multi-user.target.wants/emupin-metrics.path || echo "no link"
ls /usr/lib/emupin || echo "no library"
cat /etc/emupin/policy.yaml
echo "== purge"
touch /var/lib/emupin/last-good /var/log/emupin/audit.jsonl 2>/dev/null || mkdir -p /var/log/emupin
dpkg --purge emupin
ls -d /etc/emupin /var/lib/emupin /var/log/emupin || echo "nothing left"
ls -A /etc/libvirt/hooks
reloads
"""


@pytest.fixture(scope="module")
def life(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return steps(run(tmp_path_factory.mktemp("life"), packages, f"checkout={CHECKOUT}\n{LIFE}"))


def test_installing_leaves_a_foreign_hook_alone_compiles_and_reloads(life: dict[str, list[str]]) -> None:
    lines = life["install"]
    assert "50-emupin" in lines
    reloaded, compiled, modules = lines[-3:]
    assert int(reloaded) == 1
    assert compiled == modules


def test_upgrading_keeps_what_is_the_administrators_and_reloads(life: dict[str, list[str]]) -> None:
    lines = life["upgrade"]
    assert lines.count("50-emupin") == 1
    assert "version: 1" in lines
    assert "# mine" in lines
    assert "no older.py" in lines
    assert "hook as shipped" in lines
    assert "1" in lines  # reloads


def test_another_copy_in_force_keeps_what_both_share(life: dict[str, list[str]]) -> None:
    lines = life["another copy"]
    assert [line for line in lines if line.startswith("note: /etc/libvirt/hooks/qemu.d/50-emupin is another copy's")]
    assert lines.count("/run/emupin/claims") == 2
    assert {"/etc/emupin/policy.yaml", "/var/log/emupin/audit.jsonl"} <= set(lines)


def test_another_copy_that_waits_for_its_hook_keeps_what_both_share(life: dict[str, list[str]]) -> None:
    lines = life["a copy that lost its hook to the package"]
    assert "the package's hook" in lines
    assert "qemu.d" not in lines
    assert "emupin: policy and audit trail stay: /usr/local/share/emupin/hook is another copy's" in lines
    assert {"/run/emupin/claims", "/etc/emupin/policy.yaml", "/var/log/emupin/audit.jsonl"} <= set(lines)


def test_a_removal_that_is_called_off_leaves_the_hook_in_place(life: dict[str, list[str]]) -> None:
    lines = life["called off"]
    assert "removed /etc/libvirt/hooks/qemu.d/50-emupin" in lines
    state, hook, compiled, modules = lines[-4:]
    assert (state, hook) == ("installed", "hook as shipped")
    assert compiled == modules


def test_what_cannot_be_removed_is_said_and_keeps_nothing_else(life: dict[str, list[str]]) -> None:
    lines = life["what cannot be removed"]
    assert "warning: /run/emupin could not be removed: see above, and remove it" in lines
    assert lines[-2:] == ["config-files", "qemu"]


def test_removing_takes_the_hook_away_reloads_and_tells_of_the_recorded_pins(life: dict[str, list[str]]) -> None:
    lines = life["remove"]
    assert "50-emupin" not in lines
    assert "qemu.d" not in lines
    assert "1" in lines
    assert "no /run/emupin" in lines
    assert {"no figures", "no link"} <= set(lines)
    assert "no library" in lines
    assert "version: 1" in lines
    assert any("pins that were recorded stay" in line for line in lines)


def test_purging_leaves_nothing_but_the_foreign_hook(life: dict[str, list[str]]) -> None:
    lines = life["purge"]
    assert "nothing left" in lines
    assert "qemu" in lines


ROLE = f"""
export PATH={Path(sys.executable).parent}:$PATH ANSIBLE_NOCOLOR=1 ANSIBLE_PIPELINING=1
export ANSIBLE_ROLES_PATH={CHECKOUT}/deploy/ansible/roles
cat >/tmp/play.yml <<'TEXT'
- hosts: all
  gather_subset: ["!all", "!min", pkg_mgr, python]
  roles: [emupin]
  vars:
    emupin_source: file
    emupin_file: /tmp/given/emupin.deb
    emupin_policy_file: {CHECKOUT}/examples/policy.yaml
    ansible_python_interpreter: /usr/bin/python3
TEXT
play() {{ ansible-playbook -i localhost, -c local /tmp/play.yml "$@" || echo "failed with $?"; }}
daemon libvirtd
status() {{ dpkg-query --show --showformat '${{db:Status-Status}}\n' emupin; }}
echo "== check"
play --check
echo "== first"
play
dpkg-query --show emupin
reloads
echo "== second"
play
echo "== check of removal"
play --check -e emupin_state=absent
status
echo "== absent"
play -e emupin_state=absent
status
echo "== absent again"
play -e emupin_state=absent
echo "== check of what was removed"
play --check
echo "== again"
play -e emupin_doctor=false
status
dpkg --purge emupin
mkdir /etc/emupin
echo "# 0.1.0" >/etc/emupin/policy.yaml.example
dpkg --install /tmp/given/emupin.deb </dev/null || status
echo "== unpacked alone"
play
status
cat /etc/emupin/policy.yaml.example
"""


def test_the_ansible_role_installs_the_package_file(packages: Path, tmp_path: Path) -> None:
    need("ansible-playbook")
    done = steps(run(tmp_path, packages, ROLE))
    figures = {name: next(line for line in lines if line.startswith("localhost  ")) for name, lines in done.items()}
    assert {name for name, line in figures.items() if "failed=0 " not in line} == set(), done
    still = {name for name, line in figures.items() if "changed=0 " in line}
    assert still == {"second", "absent again"}
    assert any(line.startswith("emupin\t0.") for line in done["first"])
    assert int(done["first"][-1]) >= 1  # by the package, and by the role's handler
    assert done["check of removal"][-1] == "installed"
    assert done["absent"][-1] == "config-files"
    assert done["again"][-1] == "unpacked"  # by dpkg, which asked about the file of 0.1.0
    assert done["unpacked alone"][-2:] == ["installed", "# 0.1.0"]
