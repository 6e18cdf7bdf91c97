"""A kernel and a busybox from Debian's packages: fetched through apt, unpacked into a folder, never installed."""

from __future__ import annotations

import functools
import gzip
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path


class PackageError(AssertionError):
    """A package cannot be had."""


def output(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise PackageError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def candidate(package: str) -> str:
    """The version that apt would fetch. Raises PackageError where it knows none."""
    for attempt in (1, 2):
        found = re.search(r"^ *Candidate: (\S+)$", output("apt-cache", "policy", package), re.M)
        if found and found[1] != "(none)":
            return found[1]
        if attempt == 1:
            update()
    raise PackageError(f"apt knows no package {package}: is this Debian 12, and are its security updates configured?")


@functools.lru_cache(maxsize=1)
def update() -> None:
    """Fetch the lists of packages anew, once: they may be missing, or name what the mirror has no more."""
    output("apt-get", "--quiet", "update")


def dependency(package: str) -> str:
    """What a metapackage stands for today: the first package that it depends on."""
    candidate(package)
    found = re.search(r"^ *Depends: (\S+)$", output("apt-cache", "depends", package), re.M)
    if not found:
        raise PackageError(f"{package} depends on no package: is it a metapackage?")
    return found[1]


def unpack(package: str, cache: Path) -> Path:
    """The folder with the package's files; fetched on the first call for each version."""
    folder, version = cache / package, candidate(package)
    marker = folder / ".version"
    if marker.exists() and marker.read_text() == version:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _download(package, folder)
    except PackageError:
        update()
        _download(package, folder)
    (archive,) = folder.glob("*.deb")
    output("dpkg-deb", "--extract", str(archive), str(folder))
    archive.unlink()
    marker.write_text(candidate(package))
    return folder


def _download(package: str, folder: Path) -> None:
    output("apt-get", "--quiet", "--option", "APT::Sandbox::User=root", "download", package, cwd=folder)


# -- kernel modules ---------------------------------------------------------------------------------------------------


def modules(kernel: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The wanted modules and all that they need, in loading order, without those that are built into the kernel.

    A package has no `modules.dep`, which depmod would make when it is installed; each module says what it needs.
    """
    files = {_name(path): path for path in kernel.glob("lib/modules/*/kernel/**/*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in files and name not in found:
            data = _read(files[name])
            for need in _needs(data):
                add(need)
            found[name] = data

    for name in wanted:
        add(name)
    return found


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    return {".xz": lzma.decompress, ".gz": gzip.decompress}.get(path.suffix, bytes)(data)


def _needs(module: bytes) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []
