"""The hook's own limits: whatever happens to Python, libvirt gets its answer, in time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guests import Machine
from hosts import HOOK, POLICY, PROJECT, Answer, Host, domain_xml

REFUSE = POLICY.replace("rules:", "defaults: {on_failure: refuse}\nrules:")
PROTECTED = ("reconnect", "attach", "release")
LIMIT = 2
"""Seconds, in place of ten."""
BUSY = 6
"""Seconds that a busy machine may add."""

NO_FORK = "#include <errno.h>\n#include <unistd.h>\npid_t fork(void) { errno = EAGAIN; return -1; }\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.set_policy()
    host.call("prepare", domain_xml())  # There are claims to release, and what is cached is there.
    text = HOOK.read_text().replace("\nseconds=10\n", f"\nseconds={LIMIT}\n")
    host.hook = tmp_path / "qemu"
    host.hook.write_text(text.replace("\nlib=\n", f"\nlib='{PROJECT / 'src'}'\n"))
    host.hook.chmod(0o755)
    return host


class Running:
    """A call of the hook whose stdin stays open, so that Python waits for it."""

    def __init__(self, host: Host, operation: str) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [host.hook, "nfv-1", operation, "begin", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "EMUPIN_ROOT": str(host.root)},
        )  # fmt: skip
        self.python = self.find_python()

    def find_python(self) -> int:
        """Once it has read the policy: it waits for stdin then."""
        while True:
            for pid in descendants(self.process.pid):
                if "python" in Path(f"/proc/{pid}/comm").read_text() and waits_for_stdin(pid):
                    return pid
            assert time.monotonic() < self.began + 10
            time.sleep(0.005)

    def end(self) -> tuple[int, bytes, bytes, float]:
        """Status, output, errors, and the seconds until nobody had the pipes any more."""
        assert self.process.stdout
        assert self.process.stderr
        output, errors = self.process.stdout.read(), self.process.stderr.read()
        return self.process.wait(5), output, errors, time.monotonic() - self.began


def descendants(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


def waits_for_stdin(pid: int) -> bool:
    return Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 ")


def dies(pid: int) -> bool:
    """It was killed; the kernel may take its time, and whoever has to ask for its status, too."""
    end = time.monotonic() + BUSY
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def begin(host: Host) -> Iterator[Callable[[str], Running]]:
    calls: list[Running] = []

    def start(operation: str) -> Running:
        calls.append(Running(host, operation))
        return calls[-1]

    yield start
    for call in calls:
        call.process.kill()
        call.process.communicate()


@pytest.mark.parametrize("operation", ["prepare", "migrate", "started", *PROTECTED[:2]])
def test_a_stopped_python_ends_at_the_limit(begin: Callable[[str], Running], operation: str) -> None:
    call = begin(operation)
    os.kill(call.python, signal.SIGSTOP)
    status, output, errors, seconds = call.end()
    assert (status, output, errors) == (0, b"", b"")
    assert seconds < LIMIT + BUSY
    assert dies(call.python)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGSEGV])
def test_a_python_that_says_nothing_more_refuses_where_it_had_read_so(
    host: Host, begin: Callable[[str], Running], how: signal.Signals
) -> None:
    host.set_policy(REFUSE)
    call = begin("started")
    os.kill(call.python, how)
    status, _, errors, _ = call.end()
    assert status == 1
    assert re.fullmatch(
        rb"emupin: started: (took more than 2 seconds|/usr/bin/python3 ended with status 139).*\n", errors
    )


@pytest.mark.parametrize("operation", PROTECTED[:2])
def test_nothing_ends_a_running_guest_under_refuse(host: Host, begin: Callable[[str], Running], operation: str) -> None:
    host.set_policy(REFUSE)
    call = begin(operation)
    os.kill(call.python, signal.SIGSTOP)
    assert call.end()[:3] == (0, b"", b"")


@pytest.mark.parametrize("shell", ["dash", "bash --posix"])
@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "PIPE", "ALRM", "TERM"])
def test_a_signal_to_the_shell_ends_no_guest(host: Host, name: str, shell: str) -> None:
    """`systemctl kill` reaches every process of libvirtd's unit; Python goes on where it was not meant."""
    host.hook.write_text(host.hook.read_text().replace("#!/bin/sh", f"#!/bin/{shell}"))
    host.set_policy(REFUSE)
    call = Running(host, "reconnect")
    os.kill(call.process.pid, getattr(signal, f"SIG{name}"))
    assert call.process.communicate(domain_xml().encode(), timeout=LIMIT + BUSY) == (b"", b"")
    assert call.process.returncode == 0
    assert host.audit()[-1]["op"] == "reconnect"


def test_a_rule_that_lets_guests_start_takes_back_what_the_default_said(host: Host) -> None:
    """Its trail is locked for longer than the limit: Python is killed once it knows the rule."""
    import fcntl

    host.set_policy(REFUSE.replace("match:", "on_failure: start\n    match:"))
    folder = os.open(host.root / "var/log/emupin", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    answer = host.call("prepare", domain_xml())
    os.close(folder)
    assert (answer.status, answer.error) == (0, "")


@pytest.fixture(scope="session")
def no_fork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("no-fork")
    (folder / "shim.c").write_text(NO_FORK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c"], check=True)
    return folder / "shim.so"


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore", "started", *PROTECTED])
def test_a_shell_that_cannot_fork_harms_nobody(host: Host, no_fork: Path, operation: str) -> None:
    host.set_policy(REFUSE)
    assert host.call(operation, domain_xml(), LD_PRELOAD=str(no_fork)).status == 0


def test_a_changed_module_counts_at_once(host: Host, tmp_path: Path) -> None:
    """Though the hook takes its modules from one file: the same size, and the old times set again."""
    library = shutil.copytree(PROJECT / "src", tmp_path / "library")
    host.hook.write_text(host.hook.read_text().replace(f"lib='{PROJECT / 'src'}'", f"lib='{library}'"))
    for _ in range(2):
        assert "says vcpu:0" in reason(host)
    module = library / "emupin/engine/plan.py"
    text, before = module.read_text(), module.stat()
    assert "!r} says " in text
    module.write_text(text.replace("!r} says ", "!r} SAYS "))
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(module.parent / "__pycache__", ignore_errors=True)
    assert "SAYS vcpu:0" in reason(host)


def reason(host: Host) -> str:
    assert host.call("prepare", domain_xml()).status == 0
    return str(host.audit()[-1]["reason"])


def test_65535_vcpus_each_pinned_to_16384_cpus_are_decided_in_time(tmp_path: Path) -> None:
    """Through the real front-end, with its real limit: what came of it is a decision."""
    host = Host(tmp_path)
    host.set_policy()
    host.write("sys/devices/system/cpu/online", "0-16383\n")
    pins = "".join(f"<vcpupin vcpu='{each}' cpuset='0-16383'/>" for each in range(65535))
    xml = re.sub("<vcpupin.*(?=\n *<emulatorpin)", pins, domain_xml(), flags=re.DOTALL)
    answer = host.call("migrate", xml.replace(">4</vcpu>", ">65535</vcpu>"))
    assert (answer.status, "<emulatorpin cpuset='0-16383'/>" in answer.output) == (0, True)
    assert [each["outcome"] for each in host.audit()] == ["rewritten"]


ALL_OPERATIONS = ("prepare", "migrate", "restore", "started", *PROTECTED)
LIVE = 'mount -t tmpfs none /dev && exec "$0" "$@"'


def through(host: Host, shell: str, ahead: str) -> None:
    """Have the hook run by `shell`, after what is `ahead`."""
    inner = host.hook
    host.hook = inner.with_name("limited")
    host.hook.write_text(f'#!/bin/sh\n{ahead}\nexec {shell} {inner} "$@"\n')
    host.hook.chmod(0o755)


@pytest.mark.parametrize("limit", [12, 16])
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_few_descriptors_are_enough(host: Host, shell: str, limit: int) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    host.set_policy(REFUSE)
    Machine(host)
    through(host, shell, f"ulimit -n {limit}")
    for operation in ALL_OPERATIONS:
        answer = host.call(operation, domain_xml())
        assert (answer.status, answer.error) == (0, ""), operation
        assert ("<emulatorpin cpuset='2'/>" in answer.output) == (operation in ("prepare", "migrate", "restore"))


@pytest.mark.parametrize(("shell", "limit"), [("dash", 11), ("bash", 4), ("bash", 7), ("bash", 10)])
def test_with_fewer_no_running_guest_is_harmed(host: Host, shell: str, limit: int) -> None:
    """With less than eleven dash reads no script at all: it puts the script's file at the tenth descriptor."""
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    host.set_policy(REFUSE)
    through(host, shell, f"ulimit -n {limit}")
    assert [host.call(operation, domain_xml()).status for operation in PROTECTED] == [0] * len(PROTECTED)


@pytest.fixture
def no_room() -> Iterator[Path]:
    """A cgroup with room for one process."""
    places = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    place = next((each for each in places if (each / "cgroup.procs").exists()), places[1])
    group = place / f"emupin-no-room-{os.getpid()}-{time.time_ns()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("needs a pids cgroup that may be written to")
    if not (group / "pids.max").exists():
        group.rmdir()
        pytest.skip("needs a pids cgroup")
    (group / "pids.max").write_text("1")
    yield group
    group.rmdir()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_cgroup_without_room_costs_no_time(host: Host, no_room: Path, shell: str) -> None:
    """bash would try again for fifteen seconds, and libvirt wait for it."""
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    host.set_policy(REFUSE)
    through(host, shell, f"echo $$ >{no_room}/cgroup.procs")
    for operation in ALL_OPERATIONS:
        began = time.monotonic()
        assert host.call(operation, domain_xml()) == Answer(0, "", ""), operation
        assert time.monotonic() - began < LIMIT + BUSY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("most", "decides"), [("9", False), ("99999", True)])
def test_bash_does_nothing_where_a_faked_limit_says_that_the_kernel_has_no_room(
    host: Host, tmp_path: Path, most: str, decides: bool
) -> None:
    """The real limit would hit this machine: tests/host has it."""
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    host.set_policy(REFUSE)
    (tmp_path / "most").write_text(f"{most}\n")
    mount = f"mount --bind {tmp_path}/most /proc/sys/kernel/threads-max"
    inner = host.hook
    host.hook = inner.with_name("full")
    host.hook.write_text(f'#!/bin/sh\nexec unshare --mount sh -c \'{mount}; exec bash {inner} "$@"\' sh "$@"\n')
    host.hook.chmod(0o755)
    answer = host.call("migrate", domain_xml())
    assert (answer.status, bool(answer.output)) == (0, decides)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_guest_is_stopped_for_no_record(host: Host) -> None:
    """Without /dev/null the recording process cannot be started: its threads are placed all the same."""
    host.set_policy(REFUSE)
    Machine(host, stored="2-5")
    inner = host.hook
    host.hook = inner.with_name("without-null")
    host.hook.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{LIVE}' {inner} \"$@\"\n")
    host.hook.chmod(0o755)
    assert host.call("started", domain_xml()) == Answer(0, "", "")
    entry = host.audit()[-1]
    assert (entry["op"], entry["outcome"]) == ("started", "unchanged")
    assert list((host.root / "run/emupin/orders").iterdir()), "the next recording process finds it"


DEAD_MOUNT = """
import ctypes, os, subprocess, sys
place, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
assert not libc.mount(b"dead", place.encode(), b"fuse", 0, options), os.strerror(ctypes.get_errno())
sys.exit(subprocess.run(command, stdin=subprocess.DEVNULL, timeout=30).returncode)
"""
"""Nobody answers what is asked of that file system."""


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="mounts a file system (FUSE)")
@pytest.mark.parametrize("operation", ["prepare", "reconnect"])
def test_a_policy_that_is_a_link_into_a_dead_mount(host: Host, operation: str) -> None:
    dead, policy = host.root / "dead", host.root / "etc/emupin/policy.yaml"
    dead.mkdir()
    policy.unlink()
    policy.symlink_to(dead / "policy.yaml")
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "--mount", "/usr/bin/python3", "-c", DEAD_MOUNT, dead, host.hook, "nfv-1", operation, "begin", "-"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "EMUPIN_ROOT": str(host.root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < LIMIT + BUSY
