"""A real host under QEMU, without KVM: four CPUs on two NUMA nodes, Debian's kernel, a disk that stays as it was."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import debpackage
import suites
from checkout import CHECKOUT, files

from host.image import Image

FIRST_RELEASE = "b5febdf"
"""The commit of 0.1.0."""
QEMU = "qemu-system-x86_64"
PROGRAMS = (QEMU, "qemu-img", "setpriv", "tar", *debpackage.PROGRAMS)

CPUS, MEMORY = 4, 3072
"""Memory in MiB: half of it on each node."""
SECONDS = 3600
"""When a boot that has not ended by itself is killed."""
COMMAND_LINE = (
    "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable random.trust_cpu=on apparmor=1 "
    "security=apparmor systemd.show_status=false systemd.default_timeout_start_sec=900 "
    "systemd.default_device_timeout_sec=900"
)
BOOTS = {1: "", 2: "isolcpus=managed_irq,domain,2-3 nohz_full=2-3 systemd.cpu_affinity=0,1"}

Result = dict[str, Any]


class MachineError(AssertionError):
    """The host did not do what it was made for."""


@dataclass(frozen=True)
class Seen:
    """What a host's checks gave, by name; and the end of its console, for one that is missing."""

    results: dict[str, Result]
    console: str


def run(image: Image, payload: Path, folder: Path) -> Seen:
    """Boot it twice on the same disk, with a `payload` beside it. `folder` takes logs."""
    disk = folder / "disk.qcow2"
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "raw", str(disk))
    subprocess.run(create, check=True)
    try:
        for boot in BOOTS:
            _boot(_arguments(image, disk, payload, folder, boot), folder / f"qemu-{boot}.log")
    finally:
        disk.unlink()
    lines = [line for boot in BOOTS for line in _lines(folder / f"results-{boot}.jsonl")]
    consoles = [folder / f"console-{boot}.log" for boot in BOOTS]
    return Seen({line["check"]: line for line in lines if "check" in line}, "\n".join(map(_end, consoles)))


def pack(payload: Path) -> None:
    """The checkout as it is here, below `new`, its packages, and the first release, below `old`."""
    archive = ("git", "archive", "--prefix=old/", FIRST_RELEASE)
    try:
        old = subprocess.run(archive, cwd=CHECKOUT, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise MachineError(
            f"no commit {FIRST_RELEASE}, to upgrade from: a clone with its history? git: {said}"
        ) from None
    payload.write_bytes(old)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(payload, "a") as tar:
        for path in files():
            tar.add(path, Path("new", path.relative_to(CHECKOUT)))
        for package in debpackage.build(Path(folder)):
            tar.add(package, package.relative_to(folder))


def _boot(arguments: list[str], log: Path) -> None:
    """Until it powers off or reboots; it dies with this process."""
    command = ("setpriv", "--pdeathsig", "KILL", QEMU, *arguments)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            file.write(f"not done after {SECONDS} s\n".encode())
        finally:
            process.kill()
            process.wait()


def _arguments(image: Image, disk: Path, payload: Path, folder: Path, boot: int) -> list[str]:
    half, cpus = MEMORY // 2, CPUS // 2
    nodes = []
    for node in (0, 1):
        nodes += ["-object", f"memory-backend-ram,id=memory{node},size={half}M"]
        nodes += ["-numa", f"node,nodeid={node},memdev=memory{node},cpus={node * cpus}-{node * cpus + cpus - 1}"]
    return [
        *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=768", "-cpu", suites.TCG_CPU),
        *("-smp", f"{CPUS},sockets=2,cores={cpus},threads=1", "-m", f"{MEMORY}M", *nodes),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"{COMMAND_LINE} emupin.boot={boot} {BOOTS[boot]}"),
        *("-drive", f"file={disk},format=qcow2,if=virtio,cache=unsafe"),
        *("-drive", f"file={payload},format=raw,if=virtio,readonly=on"),
        *("-device", "virtio-rng-pci", "-display", "none", "-monitor", "none", "-nodefaults", "-net", "none"),
        *("-serial", f"file:{folder}/console-{boot}.log", "-serial", f"file:{folder}/results-{boot}.jsonl"),
        "-no-reboot",
    ]


def _lines(results: Path) -> list[Result]:
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _end(console: Path) -> str:
    text = console.read_text(errors="replace") if console.exists() else "never came up"
    return f"{console}:\n" + "\n".join(text.splitlines()[-30:])
