"""What the cgroups above a guest's leave it: read from v1 and v2, with and without systemd, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trees
from decisions import GuestXml, pins, policy
from hypothesis import given
from hypothesis import strategies as st

from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.engine import confinement, host, partitions, snapshot, topology
from emupin.engine.host import Host
from emupin.engine.hostcache import read_cached
from emupin.engine.plan import NOBODY, plan

V1, V2 = "sys/fs/cgroup/cpuset", "sys/fs/cgroup"
EIGHT = Host(frozenset(range(8)), nodes={0: frozenset(range(4)), 1: frozenset(range(4, 8))})


def cpus(text: str) -> frozenset[int]:
    return cpuset.parse(text)


class Cgroups:
    """A pretended cpuset hierarchy; the root has all CPUs."""

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version
        self.put("", "0-7")

    def put(self, group: str, text: str) -> None:
        place = f"{V1}/{group}/cpuset.cpus" if self.version == "v1" else f"{V2}/{group}/cpuset.cpus.effective"
        trees.write(self.root, place, f"{text}\n")

    def systemd(self) -> None:
        (self.root / "run/systemd/system").mkdir(parents=True)
        trees.write(self.root, "usr/lib/systemd/systemd-machined", "")

    def read(self, partition: str = "/machine") -> str:
        return cpuset.format(confinement.read(str(self.root), partition) or ())


@pytest.fixture(params=["v1", "v2"])
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Cgroups:
    return Cgroups(trees.build(tmp_path, EIGHT), request.param)


def test_no_cpuset_hierarchy_confines_nobody(tmp_path: Path) -> None:
    assert confinement.read(str(tmp_path), "/machine") is None
    assert partitions.read_all(str(tmp_path)) == {}


def test_a_partition_has_what_its_cgroup_says(cgroups: Cgroups) -> None:
    cgroups.put("machine", "0-3")
    cgroups.put("machine/rt.partition", "2-3")
    cgroups.put("production.partition", "4-5")
    cgroups.put("machine/_cpu.partition", "1")
    found = {name: cgroups.read(name) for name in ("/machine", "/machine/rt", "/production", "/machine/cpu")}
    assert found == {"/machine": "0-3", "/machine/rt": "2-3", "/production": "4-5", "/machine/cpu": "1"}


def test_a_partition_that_is_not_there_yet_gets_what_is_above_it(cgroups: Cgroups) -> None:
    assert cgroups.read() == "0-7"
    cgroups.put("machine", "0-3")
    cgroups.put("machine/empty.partition", "")
    assert [cgroups.read(name) for name in ("/machine/new", "/machine/empty", "/other")] == ["0-3", "0-3", "0-7"]


def test_slices_where_systemd_has_machined(cgroups: Cgroups) -> None:
    cgroups.systemd()
    cgroups.put("machine", "7")
    cgroups.put("machine.slice", "0-3")
    cgroups.put("machine.slice/machine-rt.slice", "2-3")
    cgroups.put("machine.slice/machine-a\\x2db.slice", "1")
    assert [cgroups.read(name) for name in ("/machine", "/machine/rt", "/machine/a-b")] == ["0-3", "2-3", "1"]


def test_without_machined_libvirt_makes_a_plain_cgroup(cgroups: Cgroups) -> None:
    """Podman's containers are in machine.slice, too."""
    (cgroups.root / "run/systemd/system").mkdir(parents=True)
    cgroups.put("machine.slice", "0-3")
    assert cgroups.read() == "0-7"


def test_a_slice_that_is_not_active_yet_gets_what_its_unit_allows(cgroups: Cgroups) -> None:
    cgroups.systemd()
    trees.write(cgroups.root, "etc/systemd/system/machine-rt.slice", "[Slice]\nAllowedCPUs=4-7\nAllowedCPUs=0 1\n")
    assert cgroups.read("/machine/rt") == "0-1,4-7"
    trees.write(cgroups.root, "etc/systemd/system.control/machine-rt.slice.d/50-AllowedCPUs.conf", "AllowedCPUs=\n")
    trees.write(cgroups.root, "run/systemd/system/machine-rt.slice.d/60.conf", "[Slice]\nAllowedCPUs = 2-3, 5\n")
    assert cgroups.read("/machine/rt") == "2-3,5"
    trees.write(cgroups.root, "usr/lib/systemd/system/machine.slice.d/x.conf", "[Slice]\nAllowedCPUs=0-3\n")
    assert cgroups.read("/machine/rt") == "2-3"
    cgroups.put("machine.slice", "0-7")  # Active: what holds is in the cgroup.
    assert cgroups.read("/machine/rt") == "2-3,5"


def test_a_unit_file_is_read_as_systemd_reads_it(cgroups: Cgroups) -> None:
    """A line may go on in the next one; one that is wrong is left out, and must not keep guests from being placed."""
    cgroups.systemd()
    trees.write(cgroups.root, "etc/systemd/system/machine.slice", "[Slice]\nAllowedCPUs=4-5 \\\n 6\nAllowedCPUs=all\n")
    assert cgroups.read() == "4-6"


def test_what_cannot_be_right_is_an_error(cgroups: Cgroups) -> None:
    cgroups.put("machine", "0-")
    with pytest.raises(HostError, match="not a CPU list"):
        cgroups.read()


@pytest.mark.parametrize("slices", [True, False])
def test_all_partitions_are_found(cgroups: Cgroups, slices: bool) -> None:
    rt = "machine.slice/machine-rt.slice" if slices else "machine/rt.partition"
    odd = "machine.slice/machine-a\\x2db.slice" if slices else "machine/a-b.partition"
    if slices:
        cgroups.systemd()
    cgroups.put(rt.partition("/")[0], "0-3")
    cgroups.put(rt, "2-3")
    cgroups.put(odd, "0-3")
    cgroups.put(f"{rt}/machine-qemu.scope", "3")
    found = topology.read(str(cgroups.root))
    assert found.partitions == {"/machine": cpus("0-3"), "/machine/rt": cpus("2-3")}
    within = {name: cpuset.format(found.within(name)) for name in (None, "/machine/a-b", "/machine/rt/x", "/other")}
    assert within == {None: "0-3", "/machine/a-b": "0-3", "/machine/rt/x": "2-3", "/other": "0-7"}


def test_a_container_whose_root_has_fewer_cpus(cgroups: Cgroups) -> None:
    cgroups.put("", "1-2")
    found = topology.read(str(cgroups.root))
    assert found.partitions == {"/": cpus("1-2")}
    assert found.within("/machine") == found.within("/any/other") == cpus("1-2")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8))
def test_a_slice_of_any_name_stands_for_its_partition(part: str) -> None:
    (name,) = confinement._slices(f"/{part}")
    assert name.isascii()
    assert partitions._partition_of(name) == f"/{part}"


def test_the_cache_never_has_what_a_cgroup_may_have(cgroups: Cgroups) -> None:
    root = str(cgroups.root)
    assert read_cached(root).partitions == {}
    cgroups.put("machine", "0-3")
    assert read_cached(root).partitions == {"/machine": cpus("0-3")}
    cgroups.put("machine", "0-7")
    assert read_cached(root).partitions == {}


# -- what comes of it -------------------------------------------------------------------------------------------------

NARROW = EIGHT.replace(partitions={"/machine": cpus("0-3"), "/machine/rt": cpus("2-3")})


@pytest.mark.parametrize(
    ("placement", "partition", "after"),
    [
        ("cpus:5", None, "cpus:5: CPU 5 is outside the guest's cgroup: /machine may have 0-3"),
        ("cpus:1-2", "/machine/rt", "cpus:1-2: CPU 1 is outside the guest's cgroup: /machine/rt may have 2-3"),
        ("dedicated", None, "2"),
        ("dedicated", "/machine/rt", "2"),
        (
            "dedicated:3",
            "/machine/rt",
            "2 of the 4 CPUs of the pool are free, 3 wanted; CPUs 5-6 are outside the guest's cgroup",
        ),
        ("pool", None, "2-3"),
        ("pool", "/machine/rt/x", "2-3"),
        ("vcpu:0", None, "1"),
    ],
)
def test_placements_choose_inside(placement: str, partition: str | None, after: str) -> None:
    guest = GuestXml(pins("1,6", "7")).domain.replace(partition=partition)
    rules = policy(f'"{placement}"', pool="2-3,5-6")
    decided = plan(guest, rules, NARROW, NOBODY)
    assert after in (decided.reason if decided.failed else cpuset.format(decided.cpus or ()))


def test_a_host_recorded_before_there_were_partitions_confines_nobody() -> None:
    old = host.to_json(EIGHT)
    assert "partitions" not in old
    assert snapshot.parse(host.canonical(EIGHT), "file").host == EIGHT
    assert snapshot.parse(host.canonical(NARROW), "file").host == NARROW


@pytest.mark.parametrize(
    ("partitions", "complaint"),
    [
        ('{"machine": "0-3"}', "is not a partition"),
        ('{"/machine": ""}', "names no CPU"),
        ('["0-3"]', "must be an object"),
    ],
)
def test_partitions_are_read_strictly(partitions: str, complaint: str) -> None:
    data = host.canonical(EIGHT).decode().rstrip("}\n") + f', "partitions": {partitions}}}'
    with pytest.raises(HostError, match=complaint):
        snapshot.parse(data.encode(), "file")
