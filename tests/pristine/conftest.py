"""Throw-away Debian roots, each a copy of a pristine one, with the checkout in a folder as `git clone` makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import debian
import pytest
import suites
from checkout import CHECKOUT, files

HERE = Path(__file__).resolve().parent
SUITES = ("bullseye", "bookworm", "trixie", "sid")
CLONE = "/srv/emupin"
AUTHORITIES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name a file of certificates, for a machine that reaches its package index through a proxy."""
SECONDS = 3600


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pristine: runs the tests on pristine Debian roots; takes an hour, so asked for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    suites.skip_unless_asked(config, suites.mark(items, HERE), HERE, "an hour")


def pytest_runtest_setup() -> None:
    suites.need("a pristine root", suites.lacking(debian.PROGRAMS, "entering it"))


class Root:
    """A root that is gone after the test."""

    def __init__(self, path: Path, suite: str) -> None:
        self.path, self.suite = path, suite
        for file in files():
            place = path / CLONE.lstrip("/") / file.relative_to(CHECKOUT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)

    def run(self, *argv: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in the clone, its stderr after its stdout."""
        return subprocess.run(
            (*debian.entering(self.path), "sh", "-c", f'cd {CLONE} && exec "$@"', "sh", *argv),
            input=input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**debian.ENVIRONMENT, **self._index(), **environment},
            timeout=SECONDS,
            check=False,
        )

    def must_run(self, *argv: str, input: str = "", **environment: str) -> str:
        done = self.run(*argv, input=input, **environment)
        if done.returncode:
            pytest.fail(f"{self.suite}: {argv[0]}: status {done.returncode}:\n{done.stdout[-20000:]}", pytrace=False)
        return done.stdout

    def install(self, packages: str) -> None:
        debian.install(self.path, packages)

    def _index(self) -> dict[str, str]:
        """How this machine's pip reaches its index."""
        names = [name for name in os.environ if name.startswith("PIP_") or name.endswith("_proxy")]
        found = {name: os.environ[name] for name in names}
        for name in AUTHORITIES:
            if os.path.isfile(os.environ.get(name, "")):
                shutil.copy(os.environ[name], self.path / "etc/machine.crt")
                found[name] = "/etc/machine.crt"
        return found


@pytest.fixture(params=SUITES)
def root(request: pytest.FixtureRequest) -> Iterator[Root]:
    yield from _root(request.param)


@pytest.fixture
def bookworm() -> Iterator[Root]:
    yield from _root("bookworm")


def _root(suite: str) -> Iterator[Root]:
    pristine = debian.pristine(suite)
    with tempfile.TemporaryDirectory(prefix="emupin-root-", dir=debian.CACHE) as folder:
        path = Path(folder, "root")
        debian.copy(pristine, path)
        yield Root(path, suite)
