"""What is read from a domain XML and from libvirt's status XML."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import strategies
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emupin.base.errors import DomainError
from emupin.guest import domain, domainxml, statusxml

if TYPE_CHECKING:
    from conftest import Libvirt

FIXTURES = Path(__file__).parents[2] / "fixtures" / "xml"
STATUS = (FIXTURES / "status" / "libvirt-9.0.xml").read_bytes()


def fixture(name: str) -> domain.Domain:
    return domainxml.read((FIXTURES / f"{name}.xml").read_bytes(), name)


def guest(inside: str = "", root: str = "type='kvm'") -> domain.Domain:
    return domainxml.read(f"<domain {root}>{inside}</domain>".encode(), "x")


def refusal(inside: str) -> str:
    with pytest.raises(DomainError) as caught:
        guest(inside)
    return str(caught.value)


# -- tools' output -----------------------------------------------------------------------------------------------------


def test_nova_pinned() -> None:
    vnf = fixture("nova-1.1-pinned")
    assert (vnf.kind, vnf.id, vnf.name) == ("kvm", None, "instance-000000a7")
    assert vnf.uuid == "c1d7b9a0-2f4e-4a63-8d15-6b7c8d9e0f21"
    assert (vnf.vcpus, vnf.offline) == (8, frozenset())
    assert vnf.vcpupins == {i: frozenset((cpu,)) for i, cpu in enumerate((12, 44, 13, 45, 14, 46, 15, 47))}
    assert vnf.emulatorpin == frozenset((12, 13, 14, 15, 44, 45, 46, 47))
    assert (vnf.flavor, vnf.project) == ("vnf.xlarge", "0c1d5b7e9a2f4c6d8e0f1a2b3c4d5e6f")
    assert vnf.interfaces == frozenset({"vhostuser"})
    assert not vnf.realtime


def test_nova_of_the_older_namespace() -> None:
    assert (fixture("nova-1.0").flavor, fixture("nova-1.0").project) == (
        "nfv.large",
        "0c1d5b7e9a2f4c6d8e0f1a2b3c4d5e6f",
    )


def test_nova_realtime() -> None:
    assert fixture("nova-realtime").realtime == {1, 2, 3}


def test_nova_floating() -> None:
    web = fixture("nova-floating")
    assert (web.cpuset, web.vcpupins, web.emulatorpin) == (frozenset((2, 3, 4, 5, 34, 35, 36, 37)), {}, None)
    assert web.vcpu_cpus(0) == web.cpuset
    assert web.interfaces == frozenset({"bridge"})


def test_ovirt() -> None:
    firewall = fixture("ovirt")
    assert (firewall.vcpus, firewall.offline) == (64, frozenset(range(4, 64)))
    assert (firewall.flavor, firewall.project) == (None, None)
    assert (firewall.iothreads, firewall.iothreadpins) == ((1,), {1: frozenset((0, 1))})


def test_kubevirt() -> None:
    assert (fixture("kubevirt").name, fixture("kubevirt").uuid) == ("telco_cnf-fw", None)
    assert fixture("kubevirt").interfaces == frozenset({"ethernet"})


def test_live() -> None:
    assert (fixture("live").id, fixture("nova-1.0").id) == ("12", None)


def test_decoys_in_metadata() -> None:
    decoys = fixture("metadata-decoys")
    assert (decoys.vcpus, decoys.cpuset, decoys.emulatorpin) == (2, None, None)
    assert decoys.vcpupins == {0: frozenset((4,)), 1: frozenset((5,))}


@pytest.mark.parametrize(
    ("name", "text"), [("latin-1", "gäst-ü"), ("windows-1252", "euro-€"), ("non-ascii-name", "måling-測試-🚀")]
)
def test_names_in_any_encoding(name: str, text: str) -> None:
    assert fixture(name).name == text


# -- single facts ------------------------------------------------------------------------------------------------------


def test_an_empty_domain() -> None:
    empty = guest()
    assert (empty.name, empty.uuid, empty.vcpus, empty.cpuset, empty.automatic) == ("", None, 1, None, False)
    assert (empty.iothreads, empty.interfaces, empty.vcpu_cpus(0)) == ((), frozenset(), None)


@pytest.mark.parametrize(
    ("inside", "vcpus", "offline"),
    [
        ("<vcpu>4</vcpu>", 4, set()),
        ("<vcpu current='2'>4</vcpu>", 4, {2, 3}),
        ("<vcpu current='4'>4</vcpu>", 4, set()),
        ("<vcpu>2</vcpu><vcpu>8</vcpu>", 2, set()),
        ("<vcpu><!-- four -->4<!-- 2 --></vcpu>", 4, set()),
        ("<vcpu>&#x34;</vcpu>", 4, set()),
        ("<vcpu>4</vcpu><vcpus/>", 4, set()),
        (
            "<vcpu current='2'>4</vcpu><vcpus><vcpu id='0' enabled='yes'/><vcpu id='1' enabled='no'/>"
            "<vcpu id='2' enabled='yes'/><vcpu id='3' enabled='no'/></vcpus>",
            4,
            {1, 3},
        ),
        ("<vcpu>4</vcpu><vcpus><vcpu id='0' enabled='yes'/></vcpus>", 4, {1, 2, 3}),
        (
            "<vcpu>4</vcpu><vcpus/><vcpus><vcpu id='0' enabled='yes'/><vcpu id='3' enabled='yes'/></vcpus>"
            "<vcpus><vcpu id='1' enabled='yes'/><vcpu id='3' enabled='no'/></vcpus>",
            4,
            {2, 3},
        ),
    ],
)
def test_vcpus(inside: str, vcpus: int, offline: set[int], libvirt: Libvirt) -> None:
    for read in (guest(inside), domainxml.read(libvirt.printed(minimal(inside)), "libvirt")):
        assert read.vcpus == vcpus
        assert read.offline == offline


def minimal(inside: str) -> bytes:
    head = "<domain type='kvm'><name>x</name><memory>65536</memory><os><type>hvm</type></os>"
    return f"{head}{inside}</domain>".encode()


@pytest.mark.parametrize(
    ("attributes", "cpus"),
    [
        ("cpuset='2-3'", {2, 3}),
        ("placement='static' cpuset='2-3'", {2, 3}),
        ("placement='auto' cpuset='2-3'", None),
        ("placement='auto' cpuset='junk, which libvirt does not look at'", None),
        ("", None),
    ],
)
def test_cpus_of_an_unpinned_vcpu(attributes: str, cpus: set[int] | None, libvirt: Libvirt) -> None:
    inside = f"<vcpu {attributes}>2</vcpu>"
    assert guest(inside).vcpu_cpus(1) == cpus
    assert guest(inside).automatic == ("auto" in attributes)
    again = domainxml.read(libvirt.printed(minimal(inside)), "libvirt")
    assert again.vcpu_cpus(1) == cpus


def test_where_memory_comes_from() -> None:
    backing = "<hugepages><page size='1' unit='G' nodeset='1-2'/><page size='2' unit='M'/></hugepages>"
    backing += "<allocation mode='immediate'/>"
    tune = "<memory mode='preferred' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='0-1'/>"
    cells = "<numa><cell id='0' memory='1'/><cell id='1' memory='1'/></numa>"
    inside = f"<memoryBacking>{backing}</memoryBacking><numatune>{tune}</numatune><cpu>{cells}</cpu>"
    memory = guest(inside).memory
    assert (memory.immediate, memory.hugepages) == (True, (frozenset((1, 2)), None))
    assert (memory.mode, memory.automatic, memory.nodes) == ("preferred", False, frozenset((0,)))
    assert (memory.cells, memory.memnodes) == ((0, 1), {1: frozenset((0, 1))})


@pytest.mark.parametrize("sections", [frozenset(), domainxml.LONG_SECTIONS])
@pytest.mark.parametrize(
    ("backing", "device", "nodes"),
    [
        ("", "<memory model='dimm'><source><nodemask>1</nodemask></source>", []),
        ("", "<memory model='dimm'><source><pagesize>2048</pagesize><nodemask>1</nodemask></source>", [{1}]),
        ("<hugepages/>", "<memory model='dimm'><source><nodemask>1</nodemask></source>", [{0}, {1}]),
        ("<allocation mode='immediate'/>", '<memory model="dimm">', [{0}]),
        ("", "<memory model='nvdimm'><source><path>/dev/dax0.0</path></source>", [{0}]),
        ("<hugepages/>", "<memory model='virtio-mem'><source><nodemask>1</nodemask></source>", [{0}]),
    ],
)
def test_dimms_that_are_allocated_before_the_guest_starts(
    backing: str, device: str, nodes: list[set[int]], sections: frozenset[str]
) -> None:
    """Where libvirt 9.0.0 gives one a thread-context of its own (qemuBuildMemoryDeviceStr)."""
    cell = "<numatune><memnode cellid='0' nodeset='0'/></numatune><cpu><numa><cell id='0' memory='1'/></numa></cpu>"
    place = "<target><size>65536</size><node>0</node></target></memory>"
    network = "<interface type='vhostuser'/>"
    inside = f"<memoryBacking>{backing}</memoryBacking>{cell}<devices>{network}{device}{place}</devices>"
    read = domainxml.read(f"<domain>{inside}</domain>".encode(), "x", sections)
    assert list(map(set, read.memory.preallocated)) == nodes
    assert read.interfaces == (frozenset({"vhostuser"}) if sections else None)


def test_memory_that_little_is_said_of() -> None:
    assert guest().memory == domain.Memory()
    assert guest("<memoryBacking><hugepages/></memoryBacking>").memory.hugepages == (None,)
    assert guest("<numatune><memory placement='auto'/></numatune>").memory == domain.Memory(
        mode="strict", automatic=True
    )
    assert guest("<cpu><numa><cell memory='1'/><cell memory='1'/></numa></cpu>").memory.cells == (0, 1)


def test_what_stands_in_two_places_counts_together(libvirt: Libvirt) -> None:
    pages = "<memoryBacking><hugepages><page size='{0}' unit='KiB' nodeset='{1}'/></hugepages></memoryBacking>"
    devices = "<devices><interface type='{0}'><source {0}='x'/></interface></devices>"
    parts = [
        "<iothreads>4</iothreads>",
        *(f"<iothreadids><iothread id='{each}'/></iothreadids>" for each in (7, 9)),
        *(pages.format(*each) for each in ((2048, 0), (1048576, 1))),
        *map(devices.format, ("bridge", "network")),
        "<vcpu>2</vcpu><cpu><numa>",
        *(f"<cell id='{each}' cpus='{each}' memory='32768'/>" for each in (0, 1)),
        "</numa></cpu>",
    ]
    data = minimal("".join(parts))
    for read in (domainxml.read(data, "x"), domainxml.read(libvirt.printed(data), "libvirt")):
        assert read.iothreads == (7, 9, 1, 2)
        assert set(read.memory.hugepages) == {frozenset((0,)), frozenset((1,))}
        assert read.interfaces == frozenset(("bridge", "network"))


def test_a_page_is_for_all_memory_where_there_are_no_cells(libvirt: Libvirt) -> None:
    pages = "<hugepages><page size='2048' unit='KiB' nodeset='0'/></hugepages>"
    data = minimal(f"<memoryBacking>{pages}</memoryBacking><numatune><memory nodeset='1'/></numatune>")
    for read in (domainxml.read(data, "x"), domainxml.read(libvirt.printed(data), "libvirt")):
        assert read.memory.preallocated == (frozenset((1,)),)


def test_what_runs_and_below_what() -> None:
    inside = "<os><type arch='x86_64'>hvm</type></os><resource><partition>/machine/rt</partition></resource>"
    assert (guest(inside).os_type, guest(inside).partition) == ("hvm", "/machine/rt")
    assert (guest().os_type, guest().partition) == (None, None)


def test_own_pin_comes_first() -> None:
    inside = "<vcpu cpuset='2-3'>2</vcpu><cputune><vcpupin vcpu='1' cpuset='7'/></cputune>"
    assert guest(inside).vcpu_cpus(0) == frozenset((2, 3))
    assert guest(inside).vcpu_cpus(1) == frozenset((7,))


@pytest.mark.parametrize(
    ("inside", "ids"),
    [
        ("", ()),
        ("<iothreads>3</iothreads>", (1, 2, 3)),
        ("<iothreads>2</iothreads><iothreadids><iothread id='4'/><iothread id='2'/></iothreadids>", (4, 2)),
        ("<iothreads>3</iothreads><iothreadids><iothread id='2'/></iothreadids>", (2, 1, 3)),
        ("<iothreadids><iothread id='2'><poll max='0'/></iothread></iothreadids>", (2,)),
        ("<iothreads>1</iothreads><iothreadids><iothread id='2'/><iothread id='7'/></iothreadids>", (2, 7)),
    ],
)
def test_iothreads(inside: str, ids: tuple[int, ...], libvirt: Libvirt) -> None:
    assert guest(inside).iothreads == ids
    assert sorted(domainxml.read(libvirt.printed(minimal(inside)), "libvirt").iothreads) == sorted(ids)


def test_as_many_iothreads_as_there_can_be_take_no_time_worth_mentioning() -> None:
    started = time.process_time()
    assert guest("<iothreads>65535</iothreads>").iothreads == tuple(range(1, 65536))
    assert time.process_time() - started < 5, "each free number was looked for among all: minutes"


@pytest.mark.parametrize(
    ("scheduler", "vcpus"), [("fifo", {0, 2, 3}), ("rr", {0, 2, 3}), ("batch", {0}), ("idle", {0})]
)
def test_realtime(scheduler: str, vcpus: set[int]) -> None:
    inside = "<vcpusched vcpus='0' scheduler='fifo' priority='1'/>"
    inside += f"<vcpusched vcpus='2-3' scheduler='{scheduler}'/>"
    assert guest(f"<cputune>{inside}</cputune>").realtime == vcpus


def test_interfaces() -> None:
    inside = "<interface type='vhostuser'/><interface type='bridge'><source/></interface><hostdev type='pci'/>"
    inside += "<controller><interface type='nested'/></controller>"
    assert guest(f"<devices>{inside}</devices>").interfaces == frozenset({"vhostuser", "bridge"})


def test_flavor_and_project_only_from_nova() -> None:
    inside = "<nova:flavor name='f{1}'/><nova:owner><nova:project uuid='p{1}'/></nova:owner>"
    nova = "<nova:instance xmlns:nova='{0}'>" + inside + "</nova:instance>"
    foreign = nova.format("http://example.org/xmlns/libvirt/nova/1.0", 1)
    first, second = (nova.format("http://openstack.org/xmlns/libvirt/nova/1.7", n) for n in (2, 3))
    read = guest(f"<metadata>{foreign}{first}{second}</metadata>")
    assert (read.flavor, read.project) == ("f2", "p2")
    assert guest(f"<devices>{first}</devices>").flavor is None


NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"


@pytest.mark.parametrize(
    ("root", "metadata", "instance", "flavor"),
    [
        ("", "", f"n:instance xmlns:n='{NOVA}'", "n:flavor"),
        ("", "", f"instance xmlns='{NOVA}'", "flavor"),
        ("", f"xmlns:x='{NOVA}'", "x:instance", "x:flavor"),
        (f"xmlns:nova='{NOVA}'", "", "nova:instance", "nova:flavor"),
        ("xmlns:nova='urn:x'", f"xmlns:nova='{NOVA}'", "nova:instance", "nova:flavor"),
        ("", f"xmlns:a='{NOVA}'", f"a:instance xmlns:b='{NOVA}'", "b:flavor"),
        ("", f"xmlns:a='{NOVA}'", "a:instance", f"flavor xmlns='{NOVA}'"),
    ],
)
def test_a_prefix_means_what_it_is_declared_to_mean(root: str, metadata: str, instance: str, flavor: str) -> None:
    inside = f"<{instance}><{flavor} name='f'/></{instance.partition(' ')[0]}>"
    assert guest(f"<metadata {metadata}>{inside}</metadata>", root).flavor == "f"


@pytest.mark.parametrize(
    ("instance", "flavor"),
    [
        ("nova:instance", "nova:flavor"),
        ("instance", "flavor"),
        ("nova:instance xmlns:nova='urn:x'", "nova:flavor"),
        (f"nova:instance xmlns:nova='{NOVA}'", "nova:flavor xmlns:nova='urn:x'"),
        (f"nova:instance xmlns:nova='{NOVA}'", "flavor"),
        (f"instance xmlns='{NOVA}'", "flavor xmlns=''"),
        (f"nova:instance xmlns:nova=' {NOVA}'", "nova:flavor"),
    ],
)
def test_a_prefix_means_nothing_else(instance: str, flavor: str) -> None:
    inside = f"<{instance}><{flavor} name='f'/></{instance.partition(' ')[0]}>"
    assert guest(f"<metadata>{inside}</metadata>").flavor is None


def test_extra_specs_as_nova_writes_them() -> None:
    """LibvirtConfigGuestMetaNovaFlavorExtraSpecs, since 2025.2; older ones and other tools write none."""
    specs = "<nova:extraSpec name='hw:cpu_policy'>dedicated</nova:extraSpec><nova:extraSpec name='trait:X'/>"
    text = "<nova:instance xmlns:nova='%s'><nova:flavor name='f'>%s</nova:flavor></nova:instance>"
    for inside, expected in (
        (f"<nova:extraSpecs>{specs}</nova:extraSpecs>", {"hw:cpu_policy": "dedicated", "trait:X": ""}),
        ("<nova:extraSpecs/>", {}),
        ("", None),
    ):
        assert guest(f"<metadata>{text % (NOVA, inside)}</metadata>").extra_specs == expected


def test_a_namespace_that_libvirt_takes() -> None:
    """Prefixes that stand for nothing, a namespace with a blank, or a relative one: libvirt prints them again."""
    unbound = fixture("unbound-prefix")
    assert (unbound.vcpupins, unbound.flavor) == ({0: frozenset((4,)), 1: frozenset((5,))}, None)
    status = STATUS.replace(b"<vcpu placement", b"<metadata><a:b><c:d/></a:b></metadata><vcpu placement")
    assert status != STATUS
    assert statusxml.read(status, "x").domain.emulatorpin == frozenset((0, 1))


def test_a_tenant_cannot_forge_a_flavor() -> None:
    """The display name and the image's properties are the tenant's: text and deeper elements count for nothing."""
    space = "xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'"
    inside = "<nova:name>&lt;nova:flavor name='nfv'/></nova:name><nova:image><nova:flavor name='nfv'/>"
    inside += "<nova:properties><nova:project uuid='p'/></nova:properties></nova:image>"
    read = guest(f"<metadata><nova:instance {space}>{inside}</nova:instance></metadata>")
    assert (read.flavor, read.project) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "6d5f1c0a-3b2e-4a19-8c7d-0123456789ab",
        "6D5F1C0A3B2E4A198C7D0123456789AB",
        " 6d5f1c0a-3b2e4a198c7d0123456789ab\n",
    ],
)
def test_uuid(text: str) -> None:
    assert guest(f"<uuid>{text}</uuid>").uuid == "6d5f1c0a-3b2e-4a19-8c7d-0123456789ab"


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("<uuid>6d5f</uuid>", "x: <uuid>6d5f</uuid> is not a UUID; `uuidgen` makes one"),
        ("<vcpu>-1</vcpu>", "x: <vcpu>-1</vcpu> is not a count; give a number such as 4"),
        ("<vcpu>65536</vcpu>", "x: <vcpu>65536</vcpu> is not a count; give a number such as 4"),
        ("<iothreads>99999999999999</iothreads>", "x: <iothreads>99999999999999</iothreads> is not a count; give a"),
        ("\n<vcpus><vcpu id='y' enabled='yes'/></vcpus>\n", "x:2: <vcpu id='y'> is not a number up to 65535; give"),
        ("<vcpus><vcpu id='y' enabled='no'/></vcpus>", "x:1: <vcpu id='y'> is not a number up to 65535; give"),
        ("<vcpu current='5'>4</vcpu>", "x:1: <vcpu current='5'> is not a number up to 4; give a number such as 0"),
        ("<vcpu current='x'>4</vcpu>", "x:1: <vcpu current='x'> is not a number up to 4; give a number such as 0"),
        ("<vcpu current=''>4</vcpu>", "x:1: <vcpu current=''> is not a number up to 4; give a number such as 0"),
        ("<vcpu current='+2'>4</vcpu>", "x:1: <vcpu current='+2'> is not a number up to 4; give a number such as 0"),
        ("<cputune/>\n<cputune/>", "x:2: two <cputune>; emupin rewrites one: merge them"),
        ("\n<vcpu cpuset='y'>2</vcpu>\n\n", "x:2: <vcpu cpuset='y'>: 'y' is neither N, N-M nor ^N; give a list such"),
    ],
)
def test_impossible_values(inside: str, message: str) -> None:
    assert refusal(inside).startswith(message)


# -- any document ------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(strategies.documents())
def test_pins_of_any_document(document: strategies.Document) -> None:
    read = domainxml.read(document.data, "x")
    assert (read.vcpus, read.uuid, read.kind) == (document.vcpus, strategies.UUID, "kvm")
    assert (read.vcpupins, read.iothreadpins) == (document.vcpupins, document.iothreadpins)
    assert read.emulatorpin == document.emulatorpin


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
@given(document=strategies.documents())
def test_libvirt_reads_the_same(libvirt: Libvirt, document: strategies.Document) -> None:
    ours, theirs = domainxml.read(document.data, "x"), domainxml.read(libvirt.printed(document.data), "x")
    assert ours.replace(layout=None) == theirs.replace(layout=None)


PIECES = """<?xml version='1.0' encoding='| '?>|<domain type='kvm'>|</domain>|<domstatus pid='1'>|</domstatus>|<vcpus>
</vcpus>|<vcpu id='0' pid='|'/>|<cputune>|</cputune>|<emulatorpin cpuset='|<vcpupin vcpu='1' |<uuid>|</uuid>|<metadata>
<!DOCTYPE x>|\xff\xfe|\0|\xef\xbb\xbf|1|idna|shift_jis|hex|utf-8|&#1;|&x;|<x:y>|<!--|-->"""
JUNK = st.binary(max_size=60) | st.lists(
    st.sampled_from(PIECES.replace("\n", "|").encode("latin-1").split(b"|")), max_size=9
).map(b"".join)


@settings(max_examples=600, deadline=None)
@given(JUNK)
@example(b"<?xml version='1.0' encoding='idna'?><domain/>")
@example(b"<?xml version='1.0' encoding='shift_jis'?><domain/>")
@example(b"<domstatus pid='1'><vcpus><vcpu id='0' pid='x'/></vcpus><domain type='kvm'/></domstatus>")
def test_junk_is_refused_with_our_own_error(data: bytes) -> None:
    read_or_refuse(data)


def read_or_refuse(data: bytes) -> None:
    for read in (domainxml.read, statusxml.read):
        with contextlib.suppress(DomainError):
            read(data, "x")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(("nova-1.0", "latin-1", "kubevirt", "status/libvirt-9.0")), st.data())
def test_a_damaged_document(name: str, data: st.DataObject) -> None:
    text = bytearray((FIXTURES / f"{name}.xml").read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_or_refuse(bytes(text))


# -- status ------------------------------------------------------------------------------------------------------------


def test_status() -> None:
    status = statusxml.read(STATUS, "live-1.xml")
    assert (status.pid, status.state, status.vcpu_tids) == (109, "running", {0: 114, 1: 115})
    live = status.domain
    assert (live.kind, live.id, live.name, live.uuid) == ("qemu", "1", "live-1", "8c4a6e82-a5b9-46d7-a8f4-19203a4b5c6d")
    assert (live.vcpus, live.offline, live.iothreads) == (3, frozenset((2,)), (1,))
    assert live.vcpupins == {0: frozenset((0,)), 1: frozenset((1,))}
    assert live.emulatorpin == frozenset((0, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"domain", b"network", "x: <domstatus> holds no <domain>; check that this is one of libvirt's status files"),
        (
            b"domstatus",
            b"domain",
            "x:8: the root element is <domain>, not libvirt's <domstatus>; check that this is one of libvirt's",
        ),
        (b"pid='115'", b"pid='soon'", "x:13: <vcpu pid='soon'> is not a number up to 4194304; give a number such as 0"),
        (b"cpuset='0-1'", b"cpuset='1-0'", "x:241: <emulatorpin cpuset='1-0'>: '1-0' runs backwards; give a list"),
    ],
)
def test_status_refusals(old: bytes, new: bytes, message: str) -> None:
    with pytest.raises(DomainError) as caught:
        statusxml.read(STATUS.replace(old, new), "x")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("pid", [b"", b" pid='0'", b" pid='-1'"])
def test_guest_that_is_still_starting_has_no_process(pid: bytes) -> None:
    """libvirt writes the status file before QEMU runs, too."""
    data = b"<domstatus state='shutoff'%s><domain type='qemu'><vcpu>2</vcpu></domain></domstatus>" % pid
    status = statusxml.read(data, "x")
    assert (status.pid, status.domain.vcpus) == (0, 2)


@pytest.mark.parametrize(
    "text",
    [
        "<metadata><devices><vcpu>9</vcpu><cputune><emulatorpin cpuset='7'/></cputune></devices></metadata>",
        "<metadata><x><devices/></x><cputune><emulatorpin cpuset='7'/></cputune></metadata>",
        "<metadata/><!-- </metadata> --><x><cputune><emulatorpin cpuset='7'/></cputune></x>",
        "<metadata><!-- </metadata> <cputune> --><cputune><emulatorpin cpuset='7'/></cputune></metadata>",
        "<metadata><metadata><cputune><emulatorpin cpuset='7'/></cputune></metadata><cputune/></metadata>",
        "<metadata><![CDATA[</metadata>]]><vcpu>9</vcpu></metadata>",
    ],
)
def test_a_section_that_is_passed_over_ends_where_it_ends(text: str) -> None:
    """What looks like the guest's own elements inside, or like the section's end, is neither."""
    data = f"<domain><name>a</name>{text}<vcpu>2</vcpu><cputune><emulatorpin cpuset='1'/></cputune></domain>".encode()
    for sections in (frozenset(), frozenset(("metadata",)), frozenset(("devices",)), domainxml.LONG_SECTIONS):
        guest = domainxml.read(data, "x", sections)
        assert (guest.vcpus, guest.emulatorpin) == (2, frozenset((1,)))


PINNED = "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='8'/><emulatorpin cpuset='1'/></cputune>"


@pytest.mark.parametrize(
    "text",
    [
        f"<devices/>{PINNED}<devices></devices>",
        f"<devices />{PINNED}<!-- </devices> -->",
        f"<devices a='>'/>{PINNED}<?x </devices ?>",
        f"<devices\n/>{PINNED}<x><![CDATA[</devices>]]></x>",
        f"<devices a='/>'><!-- </devices> --></devices>{PINNED}",
        f"<devices><devices/><a></a></devices>{PINNED}<devices></devices>",
        f"<devices><devices></devices><![CDATA[</devices]]></devices>{PINNED}<devices/>",
        f"<devices></devices ><devices></devices>{PINNED}",
        f"<devices xmlns='urn:x'/>{PINNED}<devices></devices>",
    ],
)
def test_whatever_devices_look_like_nothing_behind_them_is_missed(text: str) -> None:
    """They are most of a document, and mostly the last that counts: then the rest is not looked at."""
    for sections in (frozenset(), frozenset(("metadata",)), domainxml.LONG_SECTIONS):
        read = domainxml.read(f"<domain><name>a</name>{text}</domain>".encode(), "x", sections)
        assert (read.vcpus, read.vcpupins, read.emulatorpin) == (2, {0: frozenset((8,))}, frozenset((1,)))
