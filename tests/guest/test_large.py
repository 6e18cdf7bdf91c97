"""Domain XML far beyond what libvirt writes, up to the 16 MiB that are read: decided in time, or refused in time.

A hook call has nine seconds. What is asserted is processor time, so that a busy machine makes no difference; each of
these takes one or two; most took minutes before costs grew with the document alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from decisions import policy
from hosts import domain_xml

from emupin.base.errors import DomainError
from emupin.engine.host import Host
from emupin.engine.plan import plan
from emupin.engine.situation import Others
from emupin.guest.domain import Domain
from emupin.guest.domainxml import read
from emupin.node.book import pinned
from emupin.trail.entries import facts

HOST = Host(frozenset(range(16384)), cores=tuple(frozenset((cpu, cpu + 8192)) for cpu in range(8192)))
VCPUS = 65535
ALL = "0-16383"
EACH_ITS_CORE = tuple(f"{cpu},{cpu + 8192}" for cpu in range(8192))
SECONDS = 10.0


@contextmanager
def in_time() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def guest_xml(tunes: str, vcpus: int = VCPUS, ahead: str = "") -> bytes:
    head, _, rest = domain_xml().partition("    <vcpupin")
    tail = rest.partition("  </cputune>")[2]
    head = head.replace("<vcpu placement='static'>4<", f"{ahead}<vcpu>{vcpus}<")
    return f"{head}{tunes}  </cputune>{tail}".encode()


def pins(*texts: str, tag: str = "vcpupin", index: str = "vcpu", first: int = 0) -> str:
    """As many as there are vCPUs, with the `texts` in turns."""
    numbers = range(first, VCPUS)
    return "".join(f"<{tag} {index}='{each}' cpuset='{texts[each % len(texts)]}'/>" for each in numbers)


def decide(guest: Domain, placement: str) -> None:
    """All that the hook makes of a guest."""
    made = plan(guest, policy(placement, pool="0-16383"), HOST)
    assert made.reason
    pinned(guest)
    assert len(facts(guest, HOST, Others())["vcpupins"]) == len(guest.vcpupins)  # type: ignore[arg-type]


@pytest.mark.parametrize("placement", ['"vcpu:0"', '"vcpu:non-realtime"', "pool", "dedicated"])
@pytest.mark.parametrize(
    "texts", [(ALL,), ("8192-16383", "0-8191"), tuple(f"{cpu},{cpu + 8192}" for cpu in range(8192))]
)
def test_a_pin_for_each_of_65535_vcpus(texts: tuple[str, ...], placement: str) -> None:
    realtime = "<vcpusched vcpus='1-16383' scheduler='fifo'/>"
    with in_time():
        decide(read(guest_xml(pins(*texts) + realtime), "test"), placement)


def test_as_many_iothreads_each_with_a_pin() -> None:
    tunes = pins("5") + pins(ALL, tag="iothreadpin", index="iothread", first=1)
    with in_time():
        guest = read(guest_xml(tunes, ahead=f"<iothreads>{VCPUS}</iothreads>"), "test")
        assert guest.iothreads == tuple(range(1, VCPUS + 1))
        decide(guest, '"cpus:7"')


def test_iothreads_without_ids_take_the_lowest_that_are_free() -> None:
    given = "<iothreads>5</iothreads><iothreadids><iothread id='2'/><iothread id='9'/></iothreadids>"
    assert read(guest_xml("", 4, given), "test").iothreads == (2, 9, 1, 3, 4)


def test_huge_pages_for_many_cells() -> None:
    pages, cells = "<page nodeset='16000'/>" * 100_000, "<cell/>" * 100_000
    ahead = f"<memoryBacking><hugepages>{pages}</hugepages></memoryBacking><cpu><numa>{cells}</numa></cpu>"
    with in_time():
        found = read(guest_xml("", 4, ahead + "<numatune><memory nodeset='1'/></numatune>"), "test").memory.preallocated
    assert found == (frozenset((1,)),)


@pytest.mark.parametrize("inside", ["", "<!-- -->" * 5_000], ids=["many", "long"])
@pytest.mark.parametrize("devices", ["<devices/>", "<devices></devices>", "<devices><devices></devices></devices>"])
def test_devices_again_and_again(devices: str, inside: str) -> None:
    again = (devices + inside) * (400 if inside else 200_000)
    data = domain_xml().replace("</domain>", f"{again}</domain>").encode()
    with in_time():
        assert read(data, "test", frozenset()).vcpus == 4


@pytest.mark.parametrize(
    ("tunes", "says"),
    [
        ("".join(f"<vcpupin vcpu='{each}' cpuset='{ALL},^{each % 16384},^{each // 16384}'/>" for each in range(VCPUS)),
         ":7: its CPU lists name more than 1048576 CPUs together; no host needs that: wrong file?"),
        (f"<vcpupin vcpu='0' cpuset='{f'{ALL},' * 1_900_000}'/>", "…'>: names the same CPUs again and again"),
        ("<a/>" * 4_000_000, ":7: more than 262144 elements in <cputune>; wrong file?"),
    ],
    ids=["lists that all differ", "one long list", "elements"],
)  # fmt: skip
def test_what_no_host_needs_is_refused(tunes: str, says: str) -> None:
    with in_time(), pytest.raises(DomainError) as caught:
        read(guest_xml(tunes), "test")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500
