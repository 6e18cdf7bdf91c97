"""`emupin policy test`: a line for each guest, what changes against an older policy, and many guests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import PINNED, automatic, emupin, make_root

if TYPE_CHECKING:
    from conftest import Golden

PROJECT = Path(__file__).resolve().parents[2]
GOLDENS = Path(__file__).parent / "explanations"
POLICY, NEWER = "tests/commands/explanations/policy.yaml", "tests/commands/explanations/newer.yaml"
GUESTS = ("demo", "nova-1.1-pinned", "nova-iothreads", "nova-realtime", "nova-floating", "virt-install")
HOST = ("--host", "fixtures/host/xeon-2x32-smt.json")
FILES = [f"fixtures/xml/{name}.xml" for name in GUESTS]

GUEST = PINNED.decode()
RULES = """\
version: 1
rules:
  - {name: nfv, match: {name: "nfv-*"}, placement: "vcpu:0"}
  - {name: bad, match: {name: "bad-*"}, placement: "cpus:5"}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root", policy=RULES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "guests"
    folder.mkdir()
    return folder


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.xml").write_text(GUEST % name)


def write_policy(folder: Path, text: str) -> Path:
    path = folder / "other.yaml"
    path.write_text(text)
    return path


def test_each_guest(golden: Golden, root: Path) -> None:
    done = emupin(root, "policy", "test", "--policy", POLICY, *HOST, *FILES, cwd=PROJECT)
    golden(GOLDENS / "test.txt", done.stdout)
    golden(GOLDENS / "test.err", done.stderr)
    assert done.returncode == 1  # The rule `fixed` has nothing for its guest.


def test_against_an_older_policy(golden: Golden, root: Path) -> None:
    args = ("--policy", NEWER, "--against", POLICY, *HOST)
    done = emupin(root, "policy", "test", *args, *FILES, cwd=PROJECT)
    golden(GOLDENS / "against.txt", done.stdout)
    golden(GOLDENS / "against.err", done.stderr)
    assert done.returncode == 1


def test_json(root: Path) -> None:
    args = ("policy", "test", "--policy", NEWER, *HOST, "--json", "fixtures/xml/demo.xml")
    told = json.loads(emupin(root, *args, cwd=PROJECT).stdout)
    assert {key: told[key] for key in ("file", "name", "rule", "placement", "before", "after", "failed")} == {
        "file": "fixtures/xml/demo.xml", "name": "instance-0000002a", "rule": "renamed", "placement": "dedicated",
        "before": "2-5", "after": "6", "failed": False,
    }  # fmt: skip
    assert told["changed"]
    assert "old" not in told
    compared = json.loads(emupin(root, *args, "--against", POLICY, cwd=PROJECT).stdout)
    assert (compared["persist"], compared["old"]["persist"], compared["old"]["rule"]) == (False, True, "nfv")


@pytest.mark.parametrize(("names", "status"), [(["nfv-1", "other"], 0), (["nfv-1", "bad-1"], 1)])
def test_status_is_1_where_no_placement_passes(root: Path, folder: Path, names: list[str], status: int) -> None:
    add(folder, *names)
    assert emupin(root, "policy", "test", folder).returncode == status


@pytest.mark.parametrize(
    ("old", "status"),
    [
        (RULES, 0),
        (RULES.replace("name: nfv", "name: renamed"), 0),
        (RULES.replace('"vcpu:0"', '"cpus:4"'), 0),
        (RULES.replace('"vcpu:0"', '"cpus:3"'), 1),
        (RULES.replace('"vcpu:0"', '"vcpu:0", persist: false'), 1),
        (RULES.replace('"vcpu:0"', '"vcpu:0", drift: keep'), 1),
        (RULES.replace('"cpus:5"', '"cpus:5", on_failure: refuse'), 1),
        (RULES.replace('"vcpu:0"', '"vcpu:0", on_failure: refuse'), 0),
    ],
)
def test_only_what_a_guest_gets_is_a_difference(root: Path, folder: Path, old: str, status: int) -> None:
    add(folder, "nfv-1", "bad-1")
    done = emupin(root, "policy", "test", folder, "--against", write_policy(folder, old))
    assert (done.returncode, bool(done.stdout)) == (status, bool(status))


def test_one_bad_file_does_not_stop_the_others(root: Path, folder: Path) -> None:
    add(folder, "nfv-1", "nfv-3")
    (folder / "nfv-2.xml").write_text("<network/>")
    done = emupin(root, "policy", "test", folder)
    assert done.returncode == 2
    assert done.stdout.count(b"4-5 -> 4\n") == 2
    assert b"nfv-2.xml:1: the root element is <network>" in done.stderr


@pytest.mark.parametrize("name", ["--policy", "--against"])
def test_a_policy_that_is_not_valid(root: Path, folder: Path, name: str) -> None:
    add(folder, "nfv-1")
    done = emupin(root, "policy", "test", folder, name, write_policy(folder, "version: 7\n"))
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("pins", "outcome", "changed"),
    [
        ({}, "4 stays, iothreads 1-2 -> 4", True),
        ({"1": "4"}, "4 stays, iothread 2 -> 4", True),
        ({"1": "4", "2": "4"}, "4 stays", False),
        ({"emulator": "5", "1": "4", "2": "5"}, "5 -> 4, iothread 2 -> 4", True),
        ({"emulator": "5", "1": "4", "2": "4"}, "5 -> 4", True),
    ],
)
def test_what_rewrite_would_change_is_a_change(
    root: Path, folder: Path, pins: dict[str, str], outcome: str, changed: bool
) -> None:
    (root / "etc/emupin/policy.yaml").write_text(RULES.replace('"vcpu:0"', '"vcpu:0", iothreads: follow'))
    own = f"<emulatorpin cpuset='{pins.get('emulator', '4')}'/>"
    own += "".join(f"<iothreadpin iothread='{key}' cpuset='{pins[key]}'/>" for key in "12" if key in pins)
    xml = (GUEST % "nfv-1").replace("</vcpu>", "</vcpu><iothreads>2</iothreads>")
    (folder / "nfv-1.xml").write_text(xml.replace("<emulatorpin cpuset='4-5'/>", own))
    done = emupin(root, "policy", "test", folder)
    assert done.stdout.decode() == f"{folder}/nfv-1.xml: nfv-1: nfv, vcpu:0: {outcome}\n"
    assert done.stderr.decode().startswith("rule nfv: 1 guest (1 changes)\n" if changed else "rule nfv: 1 guest\n")
    assert json.loads(emupin(root, "policy", "test", "--json", folder).stdout)["changed"] == changed
    assert emupin(root, "rewrite", "--check", folder).returncode == changed


@pytest.mark.parametrize(
    ("old", "status", "effect"),
    [
        ('"vcpu:0"', 0, ""),
        ('"vcpu:1"', 1, ""),
        ("keep", 1, ""),
        ('"cpus:3"', 1, ""),
        ('"vcpu:0", persist: false', 1, " (persist: false -> true)"),
    ],
)
def test_a_guest_that_waits_for_numad(root: Path, folder: Path, old: str, status: int, effect: str) -> None:
    """What it gets is known when it has started: that is said, and is neither a pin that stays nor trouble."""
    (folder / "nfv-1.xml").write_bytes(automatic())
    told = "; numad has not chosen the CPUs of its vCPUs yet: decided when it has started"
    done = emupin(root, "policy", "test", folder)
    assert (done.returncode, done.stdout.decode().endswith(f"{told}\n")) == (0, True)
    assert done.stderr.decode().startswith("rule nfv: 1 guest\n")
    older = write_policy(folder, RULES.replace('"vcpu:0"', old))
    done = emupin(root, "policy", "test", folder, "--against", older)
    assert (done.returncode, done.stdout.decode().endswith(f"{told}{effect}\n")) == (status, bool(status))


def test_a_guest_of_another_driver(root: Path) -> None:
    done = emupin(root, "policy", "test", "-", data=(GUEST % "nfv-1").replace("'kvm'", "'lxc'").encode())
    assert done.stdout == b"-: nfv-1: type 'lxc' is none of the QEMU driver's: the hook is not called for it\n"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, b"no rule: 1 guest")


def test_stdin_stands_alone(root: Path) -> None:
    alone = emupin(root, "policy", "test", "-", data=(GUEST % "nfv-1").encode())
    assert (alone.returncode, alone.stdout) == (0, b"-: nfv-1: nfv, vcpu:0: 4-5 -> 4\n")
    assert emupin(root, "policy", "test", "-", "x.xml").returncode == 2


def test_nothing_there(root: Path, folder: Path) -> None:
    done = emupin(root, "policy", "test", folder)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (0, b"", b"there is no *.xml file")


def test_a_name_with_control_characters_is_escaped(root: Path, folder: Path) -> None:
    (folder / "evil.xml").write_text(GUEST % "nfv-&#x9b;31m&#10;x")
    done = emupin(root, "policy", "test", folder)
    assert done.stdout.endswith(b"evil.xml: nfv-\\x9b31m\\nx: nfv, vcpu:0: 4-5 -> 4\n")


def test_guests_from_elsewhere_are_told_once(root: Path, folder: Path) -> None:
    for name in ("nfv-1", "nfv-2", "nfv-3"):
        (folder / f"{name}.xml").write_text((GUEST % name).replace("'5'", "'90'"))
    done = emupin(root, "policy", "test", folder)
    assert done.stderr.count(b"--host none") == 1
    assert b"(and 2 more of the guests)" in done.stderr


PEAK = """\
import resource, sys
from emupin import cli
status = cli.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def test_many_guests_in_order_and_in_bounded_memory(root: Path, folder: Path) -> None:
    peaks = []
    for count in (200, 2000):
        for at in range(count):
            (folder / f"{at % 40:02}").mkdir(exist_ok=True)
            (folder / f"{at % 40:02}/{at:05}.xml").write_text(GUEST % f"nfv-{at}")
        output, peak = measure(root, folder)
        names = [line.split(b": ")[0] for line in output.splitlines()]
        assert (len(names), names) == (count, sorted(names))
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 4096  # KiB


def measure(root: Path, folder: Path) -> tuple[bytes, int]:
    """What the command prints, and the peak of its memory in KiB."""
    import subprocess
    import sys

    from command import environment

    command = [sys.executable, "-c", PEAK, "policy", "test", "--jobs", "2", str(folder)]
    done = subprocess.run(command, capture_output=True, env=environment(root), timeout=60, check=True)
    return done.stdout, int(done.stderr.splitlines()[-1])
