"""The host's topology: read from kernel files, cached for the hook, recorded in a file, and read back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import trees
from decisions import held, policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from topologies import hosts

from emupin import cli
from emupin.base import cached as caches
from emupin.base import cpuset
from emupin.base.errors import HostError
from emupin.engine import host, interrupts, kernelfiles, snapshot
from emupin.engine.host import Host
from emupin.engine.hostcache import read_cached
from emupin.engine.situation import Own
from emupin.engine.topology import read as read_host

RECORDED = sorted(path.stem for path in trees.FIXTURES.glob("*.json"))
MANIFESTS = sorted(path.stem for path in trees.FIXTURES.glob("*.tree"))


def cpus(text: str) -> frozenset[int]:
    return cpuset.parse(text)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(hosts())
def test_any_topology_survives_tree_cache_and_snapshot(tmp_path: Path, topology: Host) -> None:
    shutil.rmtree(tmp_path / "host", ignore_errors=True)
    root = str(trees.build(tmp_path / "host", topology))
    assert read_host(root) == topology
    assert read_cached(root) == topology
    assert read_cached(root) == topology
    assert Host.from_plain(topology.to_plain()) == topology
    assert snapshot.parse(snapshot.render(snapshot.take(root)).encode(), "file").host == topology
    assert snapshot.parse(host.canonical(topology), "file").host == topology


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_host_is_what_a_tree_of_it_gives(tmp_path: Path, name: str) -> None:
    path = trees.FIXTURES / f"{name}.json"
    recorded = snapshot.read(str(path))
    assert "source" in recorded.remarks
    assert snapshot.render(recorded) == path.read_text()
    assert read_host(str(trees.build(tmp_path, recorded.host))) == recorded.host


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_gives_its_recorded_host(tmp_path: Path, name: str) -> None:
    root = trees.unpack(trees.FIXTURES / f"{name}.tree", tmp_path)
    assert snapshot.load(str(root)) == snapshot.load(str(trees.FIXTURES / f"{name}.json"))


def test_nodes_and_siblings() -> None:
    server = snapshot.load(str(trees.FIXTURES / "xeon-2x32-smt.json"))
    assert server.siblings(3) == {3, 67}
    assert server.node_of(67) == 0
    assert server.nodes_of([3, 127]) == {0, 1}
    for known, cpu in ((server, 999), (Host(online=cpus("0-3")), 1)):
        assert known.siblings(cpu) == {cpu}
        assert known.node_of(cpu) is None
        assert known.nodes_of([cpu]) == frozenset()


# -- what kernels leave out -------------------------------------------------------------------------------------------


def test_online_alone_is_a_host_of_one_node(tmp_path: Path) -> None:
    trees.write(tmp_path, f"{trees.CPU}/online", "0-3\n")
    assert read_host(str(tmp_path)) == Host(online=cpus("0-3"), nodes={0: cpus("0-3")})


@pytest.mark.parametrize("text", ["", "\n", "(null)\n", "  (null)\n"])
def test_no_nohz_full(tmp_path: Path, text: str) -> None:
    trees.write(tmp_path, f"{trees.CPU}/online", "0-3\n")
    trees.write(tmp_path, f"{trees.CPU}/nohz_full", text)
    assert read_host(str(tmp_path)).nohz_full == frozenset()


def test_isolated_partitions_count_as_isolated(tmp_path: Path) -> None:
    trees.write(tmp_path, f"{trees.CPU}/online", "0-7\n")
    trees.write(tmp_path, f"{trees.CPU}/isolated", "2\n")
    trees.write(tmp_path, "sys/fs/cgroup/cpuset.cpus.isolated", "4-5\n")
    assert read_host(str(tmp_path)).isolated == cpus("2,4-5")


def test_a_node_without_online_cpus_is_left_out(tmp_path: Path) -> None:
    trees.build(tmp_path, Host(online=cpus("0-1"), nodes={0: cpus("0-1")}))
    trees.write(tmp_path, f"{trees.NODE}/online", "0-2\n")
    trees.write(tmp_path, f"{trees.NODE}/node1/cpulist", "\n")
    trees.write(tmp_path, f"{trees.NODE}/node2/cpulist", "2-3\n")
    assert read_host(str(tmp_path)).nodes == {0: cpus("0-1")}


def test_siblings_that_are_offline_are_no_siblings(tmp_path: Path) -> None:
    trees.build(tmp_path, Host(online=cpus("0-1"), cores=(cpus("0,2"), cpus("1,3"))))
    assert read_host(str(tmp_path)).cores == (cpus("0"), cpus("1"))


def test_a_cpu_that_goes_offline_meanwhile_is_no_error(tmp_path: Path) -> None:
    """`online` still names it, and its folder has gone already."""
    topology = Host(cpus("0-3"), nodes={0: cpus("0-3")}, cores=(cpus("0-1"), cpus("2"), cpus("3")), l3=(cpus("0-3"),))
    trees.build(tmp_path, topology)
    shutil.rmtree(tmp_path / trees.CPU / "cpu2")
    assert read_host(str(tmp_path)) == topology.replace(cores=(cpus("0-1"), cpus("3")))


def test_without_smt_no_sibling_list_is_needed(tmp_path: Path) -> None:
    trees.write(tmp_path, f"{trees.CPU}/online", "0-1\n")
    trees.write(tmp_path, f"{trees.CPU}/smt/active", "0\n")
    assert read_host(str(tmp_path)).cores == (cpus("0"), cpus("1"))


def test_a_list_longer_than_a_page(tmp_path: Path) -> None:
    every_other = frozenset(range(0, 16384, 2))
    trees.write(tmp_path, f"{trees.CPU}/online", cpuset.format(every_other) + "\n")
    assert read_host(str(tmp_path)).online == every_other


def test_the_level_of_a_cache_counts_not_its_index(tmp_path: Path) -> None:
    trees.write(tmp_path, f"{trees.CPU}/online", "0-3\n")
    for cpu in range(4):
        for index, level, shared in ((0, 1, cpu), (1, 3, "0-3"), (3, 2, cpu)):
            trees.write(tmp_path, f"{trees.CPU}/cpu{cpu}/cache/index{index}/level", f"{level}\n")
            trees.write(tmp_path, f"{trees.CPU}/cpu{cpu}/cache/index{index}/shared_cpu_list", f"{shared}\n")
    assert read_host(str(tmp_path)).l3 == (cpus("0-3"),)


@pytest.mark.parametrize("path", ["online", "isolated", "cpu0/topology/thread_siblings_list"])
def test_nonsense_names_the_file(tmp_path: Path, path: str) -> None:
    trees.write(tmp_path, f"{trees.CPU}/online", "0-3\n")
    trees.write(tmp_path, f"{trees.CPU}/{path}", "0-x\n")
    with pytest.raises(HostError, match=f"{path}: not a CPU list"):
        read_host(str(tmp_path))


@pytest.mark.parametrize("text", [None, "", "(null)"])
def test_a_host_without_cpus_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        trees.write(tmp_path, f"{trees.CPU}/online", text)
    with pytest.raises(HostError, match="cpu/online"):
        read_host(str(tmp_path))


# -- the cache --------------------------------------------------------------------------------------------------------

SMALL = Host(cpus("0-3"), nodes={0: cpus("0-3")}, cores=(cpus("0-1"), cpus("2-3")), l3=(cpus("0-3"),))


def small(root: Path) -> str:
    return str(trees.build(root, SMALL))


def cached(root: str) -> bool:
    """Whether the next call takes the topology from the cache: a sibling list that changed goes unseen."""
    path = Path(root, trees.CPU, "cpu0/topology/thread_siblings_list")
    path.write_text("0\n")
    found = read_cached(root)
    path.write_text("0-1\n")
    return found == SMALL


def test_the_topology_is_read_once(tmp_path: Path) -> None:
    root = small(tmp_path)
    read_cached(root)
    assert cached(root)
    assert (tmp_path / "run/emupin/topology").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "path",
    [
        "sys/devices/system/cpu/isolated",
        "sys/devices/system/cpu/nohz_full",
        "sys/fs/cgroup/cpuset.cpus.isolated",
        "proc/sys/kernel/random/boot_id",
    ],
)
def test_what_changes_counts_at_once(tmp_path: Path, path: str) -> None:
    root = small(tmp_path)
    read_cached(root)
    trees.write(tmp_path, path, "3\n")
    assert not cached(root)
    assert read_cached(root).online == SMALL.online


def test_a_cpu_that_comes_online_counts_at_once(tmp_path: Path) -> None:
    root = small(tmp_path)
    read_cached(root)
    trees.write(tmp_path, f"{trees.CPU}/online", "0-4\n")
    assert read_cached(root).online == cpus("0-4")


@pytest.mark.parametrize("keep", [0, 1, 64, 65, 80, -1])
def test_a_torn_cache_is_read_anew(tmp_path: Path, keep: int) -> None:
    root = small(tmp_path)
    read_cached(root)
    cache = tmp_path / "run/emupin/topology"
    cache.write_bytes(cache.read_bytes()[:keep])
    assert read_cached(root) == SMALL
    assert cached(root)


def test_a_cache_of_another_version_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path)
    monkeypatch.setattr(caches, "WRITER", ("another", 0))
    read_cached(root)
    monkeypatch.undo()
    assert not cached(root)


def test_a_cache_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    root = small(tmp_path)
    read_cached(root)
    (tmp_path / "run/emupin/topology").chmod(0o666)
    assert not cached(root)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    root = small(tmp_path)
    (tmp_path / "run").write_text("not a folder")
    assert read_cached(root) == SMALL


# -- the file ---------------------------------------------------------------------------------------------------------

GOOD = {
    "emupin_host": 1,
    "online": "0-3",
    "isolated": "",
    "nohz_full": "",
    "nodes": {"0": "0-1", "1": "2-3"},
    "cores": ["0", "1", "2", "3"],
    "l3": [],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"onlin": "0"}, "unknown key \"onlin\"; did you mean 'online'? allowed: emupin_host, "),
        ({"emupin_host": 2}, "emupin_host: version 2 is not known; this emupin reads version 1"),
        ({"emupin_host": True}, "emupin_host: must be the number 1, is the word true; "),
        ({"online": ""}, "online: names no CPU; "),
        ({"online": 3}, "online: must be a text that lists CPUs, is the number 3; "),
        ({"online": "0-x"}, "online: not a list of CPUs: '0-x' is neither N, N-M nor ^N; "),
        ({"isolated": None}, "isolated: must be a text that lists CPUs, is the value null; "),
        ({"nodes": []}, "nodes: must be an object, is an array; "),
        ({"nodes": {"zero": "0-3"}}, "nodes.zero: is not the number of a node; "),
        ({"nodes": {"00": "0-3"}}, "nodes.00: is not the number of a node; "),
        ({"nodes": {"0": "0-1", "1": "1-3"}}, "nodes.1: CPU 1 is in 0 too; "),
        ({"cores": ["0", "4"]}, "cores[1]: CPU 4 is not in `online`; online are 0-3"),
        ({"cores": "0"}, 'cores: must be an array of CPU lists, is the text "0"; '),
        ({"l3": [7]}, "l3[0]: must be a text that lists CPUs, is the number 7; "),
        ({"kernel": 6}, "kernel: must be a text, is the number 6; "),
        ({"held": {"vcpu": {}}}, "held: unknown key \"vcpu\"; did you mean 'vcpus'? allowed: vcpus, dedicated, shared"),
        ({"held": {"own": {"a": {"keep": "1"}}}}, 'held.own.a: unknown key "keep"; '),
        ({"held": {"own": {"a": {"kept": "x"}}}}, "held.own.a.kept: "),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what(change: dict[str, object], message: str) -> None:
    with pytest.raises(HostError) as caught:
        snapshot.parse(json.dumps({**GOOD, **change}).encode(), "host.json")
    assert str(caught.value).startswith(f"host.json: {message}")


@pytest.mark.parametrize("key", GOOD)
def test_no_fact_may_be_missing(key: str) -> None:
    with pytest.raises(HostError, match=f"the key '{key}' is missing"):
        snapshot.parse(json.dumps({name: value for name, value in GOOD.items() if name != key}).encode(), "host.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "host.json:1: not JSON"),
        (b"\xff", "host.json: is not UTF-8"),
        (b"[]", "host.json: must be an object, is an array"),
        (b'{\n"a": 1,\n"a": 1}', 'host.json: the key "a" is listed twice'),
        (b"[" * 100_000, "host.json: not JSON, or nested too deeply"),
        (b" " * (snapshot.LARGEST + 1), "host.json: is larger than 4 MiB"),
    ],
)
def test_what_is_no_recorded_host(data: bytes, message: str) -> None:
    with pytest.raises(HostError) as caught:
        snapshot.parse(data, "host.json")
    assert str(caught.value).startswith(message)


@settings(max_examples=200, deadline=None)
@given(
    st.binary() | st.recursive(st.text() | st.integers() | st.none(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_nothing_but_a_host_error_comes_of_any_bytes(data: bytes) -> None:
    with pytest.raises(HostError):
        snapshot.parse(data, "host.json")


def test_a_node_with_memory_alone_is_left_out() -> None:
    """As it is where the kernel's own files are read."""
    form = {**json.loads(host.canonical(SMALL)), "nodes": {"0": "0-3", "1": ""}}
    assert snapshot.parse(json.dumps(form).encode(), "host.json").host == SMALL


def test_who_held_what_is_recorded() -> None:
    """Also where several guests have one CPU."""
    others = held({0: "a", 1: "a", 2: "b"}, {3: "c"}, {0: "a"}, floating={1: "c"}, iothreads={2: "c"})
    others = others.replace(floating={**others.floating, "d": frozenset((0, 1))})
    own = {"c": Own(frozenset((3,)), frozenset((2,)), frozenset((3,))), "a": Own(previous=frozenset((0,)))}
    recorded = snapshot.Snapshot(SMALL, {"hostname": "h"}, others, own)
    assert snapshot.parse(snapshot.render(recorded).encode(), "file") == recorded


# -- interrupts of network cards --------------------------------------------------------------------------------------


def card(root: Path, name: str, interrupts: dict[int, str]) -> None:
    for number, affinity in interrupts.items():
        trees.write(root, f"sys/class/net/{name}/device/msi_irqs/{number}", "msix\n")
        trees.write(root, f"proc/irq/{number}/effective_affinity_list", f"{affinity}\n")


def test_cpus_that_handle_interrupts_of_network_cards(tmp_path: Path) -> None:
    """And of nothing else; a card without such interrupts, or one that goes away meanwhile, has none."""
    root = small(tmp_path)
    assert interrupts.read(root) == frozenset()
    card(tmp_path, "eth0", {40: "1", 41: "2-3"})
    card(tmp_path, "eth1", {42: ""})
    trees.write(tmp_path, "sys/class/net/eth2/device/msi_irqs/43", "msix\n")
    trees.write(tmp_path, "sys/class/net/bonding_masters", "\n")
    trees.write(tmp_path, "proc/irq/9/effective_affinity_list", "0\n")
    assert interrupts.read(root) == cpus("1-3")
    assert snapshot.take(root).host.interrupts == cpus("1-3")
    assert snapshot.parse(snapshot.render(snapshot.take(root)).encode(), "file").host.interrupts == cpus("1-3")


def test_a_host_that_was_recorded_without_interrupts_is_still_read() -> None:
    form = json.loads(host.canonical(SMALL.replace(interrupts=cpus("1"))))
    assert "interrupts" not in form, "they move about: the topology is the same"
    assert snapshot.parse(json.dumps(form).encode(), "host.json").host == SMALL


def test_interrupts_are_read_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path)
    card(tmp_path, "eth0", {40: "1"})
    assert interrupts.add_cached(root, SMALL).interrupts == cpus("1")
    card(tmp_path, "eth0", {40: "2"})
    assert interrupts.add_cached(root, SMALL).interrupts == cpus("1")
    assert interrupts.add(root, SMALL).interrupts == cpus("2")
    monkeypatch.setattr(interrupts, "SECONDS", 0.0)
    assert interrupts.add_cached(root, SMALL).interrupts == cpus("2")


@pytest.mark.parametrize("change", ["build", "torn", "writable"])
def test_interrupts_of_another_build_are_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    root, cache = small(tmp_path), tmp_path / "run/emupin/interrupts"
    card(tmp_path, "eth0", {40: "1"})
    interrupts.add_cached(root, SMALL)
    card(tmp_path, "eth0", {40: "2"})
    if change == "build":
        monkeypatch.setattr(caches, "WRITER", ("another", 0))
    elif change == "torn":
        cache.write_bytes(cache.read_bytes()[:-4])
    else:
        cache.chmod(0o666)
    assert interrupts.add_cached(root, SMALL).interrupts == cpus("2")


@pytest.mark.parametrize(
    ("checks", "placement", "read"),
    [("", "pool", True), ("", "keep", False), ("interrupts: off", "pool", False), ("interrupts: error", "keep", False)],
)
def test_interrupts_are_read_only_where_a_rule_looks_at_them(checks: str, placement: str, read: bool) -> None:
    assert interrupts.matter(policy(placement, checks=checks, pool="2")) is read


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_records_and_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    root = small(tmp_path / "root")
    trees.write(Path(root), "proc/sys/kernel/hostname", "compute-1\n")
    monkeypatch.setenv("EMUPIN_ROOT", root)
    path = str(tmp_path / "host.json")
    assert cli.main(["host", "--snapshot", "-o", path]) == 0
    recorded = snapshot.read(path)
    assert (recorded.host, recorded.remarks["hostname"]) == (SMALL, "compute-1")
    assert cli.main(["host", "--snapshot"]) == 0
    assert cli.main(["host", "--host", path, "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out.splitlines()[-1])["cpus"][3] == {
        "cpu": 3, "node": 0, "siblings": "2-3", "isolated": False, "reserved": False, "pool": False,
        "interrupts": False, "vcpus": [], "floating": [], "iothreads": [], "dedicated": [], "shared": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [["-o", "x"], ["--host", "none"], ["--host", "missing"], ["--snapshot", "-o", "missing/x"]]
)
def test_what_the_command_refuses(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMUPIN_ROOT", small(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["host", *arguments]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_this_machine_can_be_read() -> None:
    """The real /sys of wherever the tests run."""
    if not os.path.exists(kernelfiles.ONLINE):
        pytest.skip("no /sys here")
    found = read_host("")
    assert os.sched_getaffinity(0) <= found.online
    assert frozenset().union(*found.nodes.values()) == found.online
