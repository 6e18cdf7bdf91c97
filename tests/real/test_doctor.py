"""`emupin doctor` on a real host: content after an installation, and each thing that is broken there is found."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .expect import define, policy, start
from .guests import CPUS, Guest
from .host import CHECKOUT, HOOKS, PrivateHost

LIBRARY = "/usr/local/lib/emupin/emupin"
POLICY = "/etc/emupin/policy.yaml"


def doctor(host: PrivateHost, *options: str) -> tuple[int, str]:
    done = host.run("/usr/local/bin/emupin", "doctor", *options, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def full_trail(host: PrivateHost) -> None:
    host.run("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", "/var/log/emupin")
    host.run("dd", "if=/dev/zero", "of=/var/log/emupin/ballast", check=False)


def read_only_trail(host: PrivateHost) -> None:
    host.run("mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", "/var/log/emupin")


def read_only_run(host: PrivateHost) -> None:
    host.run("mkdir", "-p", "/run/emupin")
    host.run("mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", "/run/emupin")


def interpreter_without_yaml(host: PrivateHost) -> None:
    package = host.run("/usr/bin/python3", "-I", "-c", "import yaml; print(yaml.__path__[0])").stdout.strip()
    host.run("mount", "-t", "tmpfs", "tmpfs", package)
    host.write(f"{package}/__init__.py", "raise ImportError('broken')\n")


FAULTS: dict[str, tuple[Callable[[PrivateHost], object], str]] = {
    "not executable": (lambda host: host.run("chmod", "0644", f"{HOOKS}/qemu"), "is not executable"),
    "linked": (
        lambda host: host.run("sh", "-c", f"mv {HOOKS}/qemu /var/lib/hook && ln -s /var/lib/hook {HOOKS}/qemu"),
        "is a link",
    ),
    "module lost": (lambda host: host.run("rm", f"{LIBRARY}/hook.py"), "missing or damaged: hook.py"),
    "policy torn": (lambda host: host.write(POLICY, "version: 1\nrules: [", 0o600), "policy.yaml:2"),
    "trail full": (full_trail, "is full: nothing is audited"),
    "trail read-only": (read_only_trail, "cannot be written to: nothing is audited"),
    "run read-only": (read_only_run, "cannot be written to: CPUs cannot be claimed"),
    "daemon stopped": (PrivateHost.stop_libvirtd, "neither libvirtd nor virtqemud runs"),
    "no PyYAML": (interpreter_without_yaml, "PyYAML is missing"),
}


def test_healthy_host_says_one_line(host: PrivateHost) -> None:
    host.install(policy())
    start(host, Guest("nfv-1"))
    status, output = doctor(host)
    assert (status, output.count("\n")) == (0, 1)
    assert output.startswith("all is well (")
    plain = json.loads(doctor(host, "--json")[1])
    assert plain["ok"] > 20
    assert any("calls the hook" in finding["what"] for finding in plain["findings"])


def test_host_without_cpuset_controller_is_told_of(each_host: PrivateHost) -> None:
    each_host.install(policy())
    start(each_host, Guest("nfv-1"))
    status, output = doctor(each_host)
    assert status == 0
    assert ("no cgroup has the cpuset controller" in output) == (each_host.cgroup == "none")


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(host: PrivateHost, name: str) -> None:
    break_it, text = FAULTS[name]
    host.install(policy())
    break_it(host)
    status, output = doctor(host)
    assert status == 1
    assert text in output
    assert output.splitlines()[-1].startswith(("1 problem,", "2 problems,", "3 problems,"))


def test_libvirtd_that_was_not_reloaded_is_found_by_its_guest(host: PrivateHost) -> None:
    host.write(POLICY, policy(), 0o600)
    host.run("sh", "-c", "mv /run/libvirtd.pid /run/away")  # install.sh finds no daemon to reload
    host.run("sh", str(CHECKOUT / "install.sh"))
    host.run("sh", "-c", "mv /run/away /run/libvirtd.pid")
    assert "nothing shows that it was reloaded since" in doctor(host)[1]
    start(host, Guest("nfv-1"))
    status, output = doctor(host)
    assert status == 1
    assert "the guest nfv-1 was started after the hook was installed" in output
    host.reload()
    define(host, Guest("nfv-2"))
    host.virsh("start", "nfv-2")
    assert doctor(host)[0] == 0


def test_thread_with_a_mask_of_its_own_is_told_of(host: PrivateHost) -> None:
    host.install(policy(f"cpus:{CPUS[0]},{CPUS[1]}", checks="{vcpu_overlap: warn}"))
    start(host, Guest("nfv-1"))
    assert doctor(host)[0] == 0
    threads = [thread for thread in host.threads("nfv-1") if thread.kind == "emulator"]
    host.run("taskset", "-cp", str(CPUS[1]), str(threads[-1].tid))
    status, output = doctor(host)
    assert status == 0
    assert "emulator threads of one guest on different CPUs" in output
