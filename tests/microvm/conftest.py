"""Boots the micro VMs, one for each kernel at the same time, when a test asks for what was seen in one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import suites

from . import machine
from .machine import Scene

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "microvm"
"""Unpacked packages, from one run to the next; git ignores it."""

KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""Debian 12's metapackages. A vhost worker is a kernel thread in one, a thread of QEMU in the other; and only the
other keeps the mask that a thread asked for."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "microvm: boots Linux with cgroup v2 under QEMU; takes minutes, so asked for or CI"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = suites.mark(items, HERE)
    if not suites.IN_CI:
        suites.skip_unless_asked(config, ours, HERE, "minutes")


def pytest_runtest_setup() -> None:
    suites.need("the micro VM", suites.lacking(machine.PROGRAMS, "sharing the machine's files with it"))


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
