"""Boots the micro VMs, one for each kernel at the same time, when a test asks for what was seen in one."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from . import machine
from .machine import Scene

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "microvm"
"""Unpacked packages, from one run to the next; git ignores it."""
IN_CI = os.environ.get("CI", "false") not in ("", "false")

KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""Debian 12's metapackages. A vhost worker is a kernel thread in one, a thread of QEMU in the other; and only the
other keeps the mask that a thread asked for."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "microvm: boots Linux with cgroup v2 under QEMU; takes minutes, so asked for or CI"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    words = (config.option.markexpr, *map(str, config.invocation_params.args))
    wanted = IN_CI or any("microvm" in word for word in words)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.microvm)
            if not wanted:
                item.add_marker(pytest.mark.skip(reason="takes minutes: ask for it with -m microvm"))


def pytest_runtest_setup() -> None:
    lacks = _missing()
    if lacks and IN_CI:
        pytest.fail(f"the micro VM needs {lacks}", pytrace=False)
    if lacks:
        pytest.skip(f"needs {lacks}")


def _missing() -> str:
    if os.geteuid():
        return "root, to share the machine's files with it"
    programs = [
        program for program in machine.PROGRAMS if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    ]
    return f"Debian 12 with the programs {', '.join(programs)}" if programs else ""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[dict[str, Scene]]]:
    """What each kernel's run gave: both run at once, which takes little longer than one."""
    images = {version: machine.prepare(kernel, CACHE) for version, kernel in KERNELS.items()}
    with ThreadPoolExecutor(len(images)) as pool:
        return {
            version: pool.submit(machine.run, image, tmp_path_factory.mktemp(f"linux-{version}-"))
            for version, image in images.items()
        }


@pytest.fixture(scope="session", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def scenes(runs: dict[str, Future[dict[str, Scene]]], kernel: str) -> dict[str, Scene]:
    """What was seen under the kernel."""
    return runs[kernel].result()
