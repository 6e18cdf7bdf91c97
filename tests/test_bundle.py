"""The file that the hook's modules come from: faster than the library, and never anything else than the library."""

from __future__ import annotations

import marshal
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosts import PROJECT, Host, domain_xml
from test_hook import changed_hook

from emupin.bundle import loader, writer

if TYPE_CHECKING:
    from emupin.bundle.loader import Kept

FILE = "run/emupin/modules-migrate"
REWRITTEN = domain_xml(emulatorpin="2")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose hook has a library of its own."""
    host = Host(tmp_path / "root")
    host.set_policy()
    shutil.copytree(PROJECT / "src/emupin", tmp_path / "lib/emupin", ignore=shutil.ignore_patterns("__pycache__"))
    host.hook = changed_hook(tmp_path, "lib=", f"lib={tmp_path / 'lib'}")
    monkeypatch.setattr(loader, "FORMAT", (loader.FORMAT[0], str(tmp_path / "lib/emupin/bundle/loader.py")))
    return host


def migrate(host: Host) -> str:
    """What a migration's filter prints."""
    answer = host.call("migrate", domain_xml())
    assert (answer.status, answer.error) == (0, "")
    return answer.output


def modules(host: Host) -> tuple[list[str], list[str]]:
    """The usual ones and the others."""
    usual, others = unpacked(host)
    return list(usual), list(others)


def unpacked(host: Host) -> tuple[dict[str, Kept], dict[str, Kept]]:
    """Those, with what is kept of them."""
    usual, packed = loader._read(str(host.root / FILE))
    return usual, marshal.loads(packed)


def library(host: Host, module: str) -> Path:
    return host.hook.parent / "lib/emupin" / module


def test_the_first_call_fills_it_and_the_second_says_what_is_usual(host: Host) -> None:
    assert migrate(host) == REWRITTEN
    usual, others = modules(host)
    assert not usual
    assert {"emupin.hook", "emupin.node.decision"} <= set(others)
    assert not [name for name in others if name.startswith("emupin.grammar")]
    assert migrate(host) == REWRITTEN
    usual, rest = modules(host)
    assert sorted(usual + rest) == sorted(others)
    assert {"emupin.hook", "emupin.node.decision"} <= set(usual)
    seldom = ["base.nearmiss", "engine.partitions", "engine.topology"]
    assert sorted(rest) == [f"emupin.{name}" for name in seldom], "a policy is compiled, a whole host is read: once"


def test_a_usual_call_leaves_it_alone_and_needs_no_module_of_the_library(host: Host) -> None:
    for _ in range(2):
        migrate(host)
    written = (host.root / FILE).stat().st_mtime_ns
    for compiled in library(host, "").rglob("*.pyc"):
        compiled.unlink()
    assert migrate(host) == REWRITTEN
    assert (host.root / FILE).stat().st_mtime_ns == written
    looked_for = {path.name.partition(".")[0] for path in library(host, "").rglob("*.pyc")}
    assert looked_for == {"loader"}, "Python compiles what it looks for"


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_module_that_has_changed_counts_at_once_and_stays(host: Host, calls: int) -> None:
    for _ in range(calls):
        assert migrate(host) == REWRITTEN
    module = library(host, "guest/splice.py")
    module.write_text(module.read_text() + "\n\ndef apply(data, edits):\n    return b'changed'\n")
    for _ in range(4):
        assert migrate(host) == "changed"
    assert "emupin.guest.splice" in {*modules(host)[0], *modules(host)[1]}


@pytest.mark.parametrize("package", [".", "base", "guest"])
def test_a_package_that_has_changed_keeps_no_module_from_being_found(host: Host, package: str) -> None:
    """A file that is copied, or gets another mode, is another one, whatever is in it."""
    for _ in range(2):
        migrate(host)
    library(host, f"{package}/__init__.py").chmod(0o600)
    assert [migrate(host) for _ in range(3)] == [REWRITTEN] * 3
    assert "emupin.base.cpuset" in modules(host)[0]


def test_a_module_that_is_gone_is_not_taken_from_the_file(host: Host) -> None:
    for _ in range(2):
        migrate(host)
    library(host, "guest/splice.py").unlink()
    answer = host.call("migrate", domain_xml())
    assert (answer.status, answer.output) == (0, ""), "the hook has failed, and the guest starts"
    assert [entry["outcome"] for entry in host.audit()][-1] == "failed"


@pytest.mark.parametrize("place", [FILE, "run/emupin"])
def test_what_others_could_have_written_is_never_run(host: Host, place: str) -> None:
    for _ in range(2):
        migrate(host)
    poisoned = poison(host)
    (host.root / place).chmod(0o777)
    assert migrate(host) == REWRITTEN
    (host.root / place).chmod(0o700)
    (host.root / FILE).write_bytes(poisoned)
    assert migrate(host) == "poison", "this test can fail"


def poison(host: Host) -> bytes:
    """Put other code for a module into the file; what the file has then."""
    usual, others = unpacked(host)
    source, package, stamp, _ = usual["emupin.guest.splice"]
    code = compile(
        "def edits(*_): return [1]\ndef cputune_diff(*_): return []\ndef apply(*_): return b'poison'", "", "exec"
    )
    usual["emupin.guest.splice"] = source, package, stamp, code
    writer.write(str(host.root / FILE), usual, others)
    return (host.root / FILE).read_bytes()


@pytest.mark.parametrize("content", [b"", b"torn", marshal.dumps(3), marshal.dumps(((0, "other"), {}, {}))])
def test_a_file_that_is_anothers_is_replaced(host: Host, content: bytes) -> None:
    migrate(host)
    (host.root / FILE).write_bytes(content)
    assert migrate(host) == REWRITTEN
    assert "emupin.hook" in {*modules(host)[0], *modules(host)[1]}


@pytest.mark.parametrize("rest", [0.0001, 0.001, 0.1, 0.5, 0.999999])
def test_a_file_that_is_torn_anywhere_is_replaced(host: Host, rest: float) -> None:
    for _ in range(2):
        migrate(host)
    data = (host.root / FILE).read_bytes()
    (host.root / FILE).write_bytes(data[: int(len(data) * rest)])
    assert migrate(host) == REWRITTEN
    assert (host.root / FILE).stat().st_size > len(data) / 2


def test_a_file_that_cannot_be_written_costs_nothing_but_time(host: Host) -> None:
    (host.root / FILE).mkdir(parents=True)
    assert [migrate(host) for _ in range(2)] == [REWRITTEN] * 2


def test_a_slow_call_leaves_no_file(host: Host) -> None:
    """Nor does it take the longer for that: it is killed at its limit, and a guest could be refused for it."""
    loading = library(host, "bundle/loader.py")
    loading.write_text(loading.read_text().replace("MOST_SECONDS = 1.0", "MOST_SECONDS = 0.001"))
    assert migrate(host) == REWRITTEN
    assert not (host.root / FILE).exists()
