"""Options and fixtures that every test may use."""

from __future__ import annotations

import difflib
import os
import re
import signal
from typing import TYPE_CHECKING, Callable

import pytest
from hypothesis import settings
from lxml import etree

if TYPE_CHECKING:
    from pathlib import Path

Golden = Callable[["Path", "bytes | None"], None]


# A shell's background job ignores SIGINT, what `nohup` starts SIGHUP, and all that the tests start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ.pop("COLUMNS", None)  # Tests that are about the width of a terminal set it.

settings.register_profile("here", deadline=None)  # A busy machine is no failure.
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write expectations anew, for review")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a result with the file that holds the expectation; no result goes with no file."""
    regenerate = bool(request.config.getoption("--regenerate"))

    def check(path: Path, result: bytes | None) -> None:
        if regenerate and result is None:
            path.unlink(missing_ok=True)
        elif regenerate and result is not None:
            path.write_bytes(result)
        expected = path.read_bytes() if path.exists() else None
        if result != expected:
            pytest.fail(f"{path.name} differs (--regenerate writes it):\n{_diff(expected, result)}", pytrace=False)

    return check


def _diff(expected: bytes | None, result: bytes | None) -> str:
    old, new = (_lines(text) for text in (expected, result))
    return "\n".join(difflib.unified_diff(old, new, "expected", "result", lineterm=""))


def _lines(text: bytes | None) -> list[str]:
    """Every byte visible: line ends are part of what is compared."""
    return [] if text is None else [repr(line)[2:-1] for line in text.splitlines(keepends=True)]


AS_LIBVIRT = etree.XMLParser(recover=True)
"""libvirt, too, goes on where a prefix stands for nothing."""


class Libvirt:
    """libvirt's own parser and printer: its `test` driver, which needs no daemon and no rights."""

    def __init__(self) -> None:
        self.api = pytest.importorskip("libvirt", reason="libvirt's Python bindings are not installed")
        self.api.registerErrorHandler(lambda *_: None, None)
        self.connection = self.api.open("test:///default")

    def printed(self, data: bytes) -> bytes:
        """What libvirt prints for `data` when it has been defined; ValueError where it refuses it."""
        flags = self.api.VIR_DOMAIN_XML_INACTIVE | self.api.VIR_DOMAIN_XML_SECURE
        try:
            guest = self.connection.defineXML(_of_type(_text(data), "kvm", "test"))
        except self.api.libvirtError as error:
            raise ValueError(str(error)) from None
        try:
            return _of_type(guest.XMLDesc(flags), "test", "kvm").encode()
        finally:
            guest.undefine()


def _text(data: bytes) -> str:
    """The bindings encode text as UTF-8, so a declaration of something else would be wrong."""
    encoding = etree.fromstring(data, AS_LIBVIRT).getroottree().docinfo.encoding or "utf-8"
    text = data.decode("utf-8-sig" if encoding.lower() == "utf-8" else encoding)
    return re.sub(r"^<\?xml\s[^?]*\?>", "", text)


def _of_type(text: str, old: str, new: str) -> str:
    start = text.index("<domain")
    return text[:start] + text[start:].replace(old, new, 1)


@pytest.fixture(scope="session")
def libvirt() -> Libvirt:
    return Libvirt()
