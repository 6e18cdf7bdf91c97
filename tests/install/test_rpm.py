"""The RPM package: built from a commit, and installed, upgraded and erased by the real rpm, on a Debian machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import suites
from roots import run, steps

CHECKOUT = Path(__file__).parents[2]
TOOLS = ("rpmbuild", "rpm", "rpmlint")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two releases of the package."""
    suites.need("a package", suites.missing(TOOLS))
    folder = tmp_path_factory.mktemp("packages")
    clone = folder / "emupin"
    names = ("packaging", "install.sh", "src", "hooks", "examples", "deploy", "README.md", "CHANGELOG.md", "LICENSE")
    clone.mkdir()
    for name in names:  # A source tree without git, as an archive of a release is.
        subprocess.run(["cp", "-R", CHECKOUT / name, clone], check=True)
    _build(clone, folder)
    spec = clone / "packaging/emupin.spec"
    spec.write_text(spec.read_text().replace("Release:        1\n", "Release:        2\n"))
    _build(clone, folder)
    return folder


def _build(clone: Path, out: Path) -> None:
    done = subprocess.run([clone / "packaging/build", "rpm", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_rpmlint_is_content(packages: Path) -> None:
    files = (*packages.glob("*-1.noarch.rpm"), CHECKOUT / "packaging/emupin.spec")
    done = subprocess.run(
        ["rpmlint", "--rpmlintrc", CHECKOUT / "packaging/emupin.rpmlintrc", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "0 errors, 0 warnings" in done.stdout, done.stdout


LIFE = """
echo '#!/bin/sh' >/etc/libvirt/hooks/qemu
chmod +x /etc/libvirt/hooks/qemu
daemon virtqemud
rpm --initdb
echo "== install"
rpm --install --nodeps /tmp/given/emupin-*-1.noarch.rpm
ls /etc/libvirt/hooks/qemu.d
stat -c %a /var/log/emupin /etc/libvirt/hooks/qemu.d/50-emupin
reloads
find /usr/lib/emupin -name '*.pyc' | wc -l
find /usr/lib/emupin -name '*.py' | wc -l
echo "version: 1" >/etc/emupin/policy.yaml
echo "== upgrade"
rpm --upgrade --nodeps /tmp/given/emupin-*-2.noarch.rpm
ls /etc/libvirt/hooks/qemu.d
reloads
rpm --verify --nodeps emupin || :
echo "== erase"
systemctl enable emupin-metrics.path
rpm --erase emupin
ls /etc/systemd/system/multi-user.target.wants/emupin-metrics.path || echo "no link"
ls -A /etc/libvirt/hooks
reloads
ls /usr/lib/emupin || echo "no library"
cat /etc/emupin/policy.yaml
echo "== another copy"
rpm --install --nodeps /tmp/given/emupin-*-2.noarch.rpm
sh "$checkout/install.sh" >/dev/null
touch /run/emupin/claims /var/log/emupin/audit.jsonl
rpm --erase emupin
cmp /etc/libvirt/hooks/qemu.d/50-emupin /usr/local/share/emupin/hook && echo "the other copy's hook"
ls /run/emupin/claims /etc/emupin/policy.yaml /var/log/emupin/audit.jsonl
"""


@pytest.fixture(scope="module")
def life(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return steps(run(tmp_path_factory.mktemp("life"), packages, f"checkout={CHECKOUT}\n{LIFE}"))


def test_installing_leaves_a_foreign_hook_alone_compiles_and_reloads(life: dict[str, list[str]]) -> None:
    lines = life["install"]
    assert "50-emupin" in lines
    assert lines[-5:-3] == ["700", "755"]
    reloaded, compiled, modules = lines[-3:]
    assert int(reloaded) == 1
    assert compiled == modules


def test_upgrading_keeps_the_hook_and_reloads(life: dict[str, list[str]]) -> None:
    assert "50-emupin" in life["upgrade"]
    assert "1" in life["upgrade"]
    assert not [line for line in life["upgrade"] if "missing" in line]


def test_erasing_takes_the_hook_and_the_library_away_and_keeps_the_policy(life: dict[str, list[str]]) -> None:
    lines = life["erase"]
    assert [line for line in lines if line == "qemu"]
    assert "qemu.d" not in lines
    assert "changed disabled emupin-metrics.path" in lines
    assert "no link" in lines
    assert "1" in lines
    assert "no library" in lines
    assert "version: 1" in lines


def test_another_copy_in_force_keeps_its_hook_and_what_both_share(life: dict[str, list[str]]) -> None:
    lines = life["another copy"]
    assert "the other copy's hook" in lines
    assert {"/run/emupin/claims", "/etc/emupin/policy.yaml", "/var/log/emupin/audit.jsonl"} <= set(lines)
