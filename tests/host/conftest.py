"""Boots the real hosts, both releases at the same time, when a test asks for what was seen in one."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from . import image, machine
from .machine import Seen

HERE = Path(__file__).resolve().parent
IN_CI = os.environ.get("CI", "false") not in ("", "false")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "host: boots a real systemd host under QEMU; takes minutes, so asked for or CI")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    words = (config.option.markexpr, *map(str, config.invocation_params.args))
    wanted = IN_CI or any("host" in word for word in words)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.host)
            if not wanted:
                item.add_marker(pytest.mark.skip(reason="takes minutes: tests/run.sh tests/host"))


def pytest_runtest_setup() -> None:
    lacks = _missing()
    if lacks and IN_CI:
        pytest.fail(f"a real host needs {lacks}", pytrace=False)
    if lacks:
        pytest.skip(f"needs {lacks}")


def _missing() -> str:
    if os.geteuid():
        return "root, to make its disk"
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    programs = [name for name in (*image.PROGRAMS, *machine.PROGRAMS) if not shutil.which(name, path=path)]
    return f"a Debian with the programs {', '.join(programs)}" if programs else ""


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Seen]]:
    """What each wanted release's host gave: at once, since one alone leaves a processor idle half of the time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = sorted({str(item.callspec.params["release"]) for item in items if "seen" in item.fixturenames})
    images = {release: image.image(release) for release in wanted}
    with ThreadPoolExecutor(len(images)) as pool:
        return {
            release: pool.submit(machine.run, each, tmp_path_factory.mktemp(f"debian-{release}-"))
            for release, each in images.items()
        }


@pytest.fixture(scope="session", params=image.SUITES, ids="debian-{}".format)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def seen(runs: dict[str, Future[Seen]], release: str) -> Seen:
    return runs[release].result()
