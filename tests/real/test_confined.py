"""A host whose guests may not have every CPU: the partition's cgroup is narrowed, and the policy names what it lost."""

from __future__ import annotations

from .expect import define, emulator_cpus, outcomes, policy, recorded, start
from .guests import CPUS, Guest
from .host import PrivateHost

EMUPIN = "/usr/local/bin/emupin"


def narrow(host: PrivateHost, *cpus: int) -> None:
    """Give the default partition these CPUs, as a slice with AllowedCPUs or an administrator does."""
    folder = host.path("/sys/fs/cgroup" + ("/cpuset" if host.cgroup == "v1" else "") + "/machine")
    if not folder.exists():
        folder.mkdir()
        (folder / "cpuset.mems").write_text((folder.parent / "cpuset.mems").read_text())
    (folder / "cpuset.cpus").write_text(",".join(map(str, cpus)))


def one_vcpu(name: str) -> Guest:
    return Guest(name, vcpus=1, emulatorpin=None)


def test_placements_choose_inside_the_partition(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    host.install(policy(f'cpus:{second}", "vcpu:0', on_failure="refuse"))
    narrow(host, first)
    guest = one_vcpu("nfv-1")
    start(host, guest)
    assert emulator_cpus(host, guest) == {frozenset((first,))}
    (prepare, *_) = [entry for entry in host.audit() if entry["op"] == "prepare"]
    why = f"cpus:{second} was skipped: CPU {second} is outside the guest's cgroup: /machine may have {first}"
    assert why in prepare["reason"]
    assert prepare["facts"]["within"] == str(first)
    assert recorded(host, guest)
    assert host.run(EMUPIN, "status").returncode == 0


def test_what_no_cpu_is_left_for_is_said_before_the_start(host: PrivateHost) -> None:
    first, second = CPUS[:2]
    host.install(policy(f"cpus:{second}", on_failure="refuse"))
    narrow(host, first)
    guest = one_vcpu("nfv-1")
    define(host, guest)
    refused = host.virsh("start", guest.uuid, check=False)
    assert f"CPU {second} is outside the guest's cgroup: /machine may have {first}" in refused.stderr
    assert outcomes(host, guest) == [("prepare", "refused")]
    explained = host.run(EMUPIN, "explain", guest.name).stdout
    assert f"CPU {second} is outside the guest's cgroup" in explained
    assert f"in /machine {first}\n" in host.run(EMUPIN, "host").stdout
