"""Boots the real hosts, both releases at the same time, when a test asks for what was seen in one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import suites

from . import image, machine
from .machine import Seen

HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "host: boots a real systemd host under QEMU; takes minutes, so asked for or CI")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = suites.mark(items, HERE)
    if not suites.IN_CI:
        suites.skip_unless_asked(config, ours, HERE, "half an hour")


def pytest_runtest_setup() -> None:
    suites.need("a real host", suites.lacking((*image.PROGRAMS, *machine.PROGRAMS), "making its disk"))


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Seen]]:
    """What each wanted release's host gave: at once, since one alone leaves a processor idle half of the time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = sorted({str(item.callspec.params["release"]) for item in items if "seen" in item.fixturenames})
    images = {release: image.image(release) for release in wanted}
    payload = tmp_path_factory.mktemp("payload") / "payload.tar"
    machine.pack(payload)
    with ThreadPoolExecutor(len(images)) as pool:
        return {
            release: pool.submit(machine.run, each, payload, tmp_path_factory.mktemp(f"debian-{release}-"))
            for release, each in images.items()
        }


@pytest.fixture(scope="session", params=image.SUITES, ids="debian-{}".format)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def seen(runs: dict[str, Future[Seen]], release: str) -> Seen:
    return runs[release].result()
