"""A campaign against a trail of three files: whatever one does to it is found with the head that was exported before.

And what readers show is what was written: nobody's work but the writer's comes out of `Trail.entries`.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import emupin, environment
from trails import current, entry, lines_of, write

from emupin.base.errors import HostError
from emupin.base.jsonline import encode
from emupin.trail import writer
from emupin.trail.chain import verify
from emupin.trail.findings import Head
from emupin.trail.lines import Line
from emupin.trail.sources import in_order, one_trail

OLDEST, MIDDLE, NEWEST = "audit.jsonl.2.gz", "audit.jsonl.1", "audit.jsonl"
NAMES = (OLDEST, MIDDLE, NEWEST)
WRITER = "0.2.0"
"""What the entries say wrote them: the first version that marks where a rotation begins a file."""

LINES = 4
"""In each file."""

EVERY = os.environ.get("EMUPIN_EVERY_BYTE")
"""Set for every byte of every line, which takes minutes; else some of them, each run the same."""

Lines = list[bytes]


class Trail:
    """A trail as the writer and a rotation leave it, its lines by file, and its exported head."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, current(root).parent
        for name in NAMES:
            for number in range(LINES):
                writer.append(str(root), entry(number, name=f"{name}-{number}", emupin=WRITER))
            if name != NEWEST:
                current(root).rename(self.folder / name.removesuffix(".gz"))
        oldest = self.folder / OLDEST.removesuffix(".gz")
        self.lines = {OLDEST: lines_of(oldest), MIDDLE: lines_of(self.folder / MIDDLE), NEWEST: lines_of(current(root))}
        oldest.unlink()
        self.put({})
        self.exported = Head(Line("", 0, self.lines[NEWEST][-1]).digest, LINES * len(NAMES))
        self.genuine = [json.loads(line) for name in NAMES for line in self.lines[name]]

    def put(self, changed: dict[str, Lines]) -> list[str]:
        """Write the files, `changed` ones among them; their paths, as a shell sorts them."""
        for name in NAMES:
            data = b"".join(changed.get(name, self.lines[name]))
            (self.folder / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        return sorted(str(self.folder / name) for name in NAMES)

    def is_found(self, changed: dict[str, Lines]) -> bool:
        paths = self.put(changed)
        told = [value for _, value in one_trail(paths, "").entries(lambda _: None) if value is not None]
        assert all(value in self.genuine for value in told), "a reader shows what nobody wrote"
        return not verify(in_order(paths), None, [self.exported]).is_sound


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    return Trail(tmp_path_factory.mktemp("trail"))


def test_untouched_it_is_whole_in_whatever_order_its_files_are_given(trail: Trail) -> None:
    paths = trail.put({})
    for order in (paths, paths[::-1], [paths[1], paths[0], paths[2]]):
        assert in_order(order) == [str(trail.folder / name) for name in NAMES]
    verdict = verify(in_order(paths), None, [trail.exported])
    assert (verdict.findings, verdict.entries) == ((), LINES * len(NAMES))
    assert [value for _, value in one_trail(paths, "").entries(lambda _: None)] == trail.genuine


# -- line by line ------------------------------------------------------------------------------------------------------

FORGED = encode({**entry(99), "emupin": WRITER, "previous": "0" * 64}).encode()


def deleted(lines: Lines, at: int) -> Lines:
    return lines[:at] + lines[at + 1 :]


def swapped(lines: Lines, at: int) -> Lines:
    other = (at + 1) % len(lines)
    lines[at], lines[other] = lines[other], lines[at]
    return lines


def doubled(lines: Lines, at: int) -> Lines:
    return [*lines[: at + 1], lines[at], *lines[at + 1 :]]


def inserted(lines: Lines, at: int) -> Lines:
    return [*lines[:at], FORGED + b"\n", *lines[at:]]


def chained(lines: Lines, at: int) -> Lines:
    """A forged line that goes on from the one before it."""
    before = Line("", 0, lines[at - 1]).digest if at else "0" * 64
    return [*lines[:at], encode({**entry(99), "previous": before}).encode() + b"\n", *lines[at:]]


def without_its_end(lines: Lines, at: int) -> Lines:
    return [*lines[:at], lines[at][:-1], *lines[at + 1 :]]


def cut_before(lines: Lines, at: int) -> Lines:
    return lines[at + 1 :]


def cut_from(lines: Lines, at: int) -> Lines:
    return lines[:at]


CHANGES = [deleted, swapped, doubled, inserted, chained, without_its_end, cut_before, cut_from]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_line_changed_as_a_whole_is_found(change: Callable[[Lines, int], Lines], name: str, trail: Trail) -> None:
    missed = [at for at in range(LINES) if not trail.is_found({name: change([*trail.lines[name]], at)})]
    assert missed == []


def appended(name: str, trail: Trail) -> Iterator[bytes]:
    yield FORGED
    yield encode({**entry(99), "previous": Line("", 0, trail.lines[name][-1]).digest}).encode()
    yield trail.lines[name][-1][:-1]
    yield b"{}"
    yield b"rubbish"


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["no line end", "line end"])
@pytest.mark.parametrize("name", NAMES)
def test_an_appended_line_is_found_with_and_without_its_end(name: str, end: bytes, trail: Trail) -> None:
    """In the newest file, one that goes on from the last line may be the writer's: only its own head tells, later."""
    allowed = {b"rubbish", b"{}"} if not end else set()  # A torn write, if it is the last, or ahead of a rotation.
    if name == NEWEST and end:
        allowed = {encode({**entry(99), "previous": trail.exported.digest}).encode()}
    for line in appended(name, trail):
        if line not in allowed:
            assert trail.is_found({name: [*trail.lines[name], line + end]}), line


def test_files_that_are_gone_are_found(trail: Trail) -> None:
    for name in NAMES:
        trail.put({})
        (trail.folder / name).unlink()
        paths = [str(trail.folder / each) for each in NAMES if each != name]
        assert not verify(in_order(paths), None, [trail.exported]).is_sound, name


def test_the_last_lines_alone_under_a_rotated_name_are_found_without_the_count_too(trail: Trail) -> None:
    path = trail.folder / "audit.jsonl.9"
    path.write_bytes(b"".join(trail.lines[NEWEST][-2:]))
    try:
        verdict = verify([str(path)], None, [Head(trail.exported.digest)])
    finally:
        path.unlink()
    assert [finding.kind for finding in verdict.findings] == ["missing"]


# -- byte by byte ------------------------------------------------------------------------------------------------------


def places(line: bytes, dice: random.Random) -> Iterator[int]:
    yield from (
        range(len(line)) if EVERY else sorted({0, len(line) - 2, len(line) - 1, *dice.sample(range(len(line)), 20)})
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_changed_byte_is_found(name: str, trail: Trail) -> None:
    dice, missed = random.Random(name), []
    for number, line in enumerate(trail.lines[name]):
        for at in places(line, dice):
            spoilt = [*trail.lines[name]]
            spoilt[number] = line[:at] + bytes([line[at] ^ (1 << dice.randrange(8))]) + line[at + 1 :]
            if not trail.is_found({name: spoilt}):
                missed.append((number, at))
    assert missed == []


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_an_entry_appended_to_a_rotated_file_is_shown_by_nobody(packed: bool, tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    head = emupin(tmp_path, "audit", "head").stdout.decode().split()
    assert emupin(tmp_path, "audit", "verify", "--head", *head).returncode == 0
    name = OLDEST if packed else MIDDLE
    forged = encode({**entry(99, name="forged-guest"), "previous": None}).encode()
    paths = trail.put({name: [*trail.lines[name], forged]})
    verify_done = emupin(tmp_path, "audit", "verify", "--head", *head, *paths)
    assert (verify_done.returncode, b"unended" in verify_done.stdout) == (1, True)
    for action in (["list"], ["show", "--guest", "nobody"], ["replay"]):
        done = emupin(tmp_path, "audit", *action)
        assert b"forged-guest" not in done.stdout, action
    assert emupin(tmp_path, "audit", "replay").returncode == 1
    page = tmp_path / "page.html"
    emupin(tmp_path, "audit", "report", "-o", page)
    assert "forged-guest" not in page.read_text()


def test_the_count_of_a_head_is_taken_quoted_and_unquoted(tmp_path: Path) -> None:
    path = write(tmp_path, 6)
    head = emupin(tmp_path, "audit", "head").stdout.decode()
    path.with_name("audit.jsonl.1").write_bytes(b"".join(lines_of(path)[2:]))
    path.unlink()
    for words in ([head], head.split(), head.split()[:2]):
        done = emupin(tmp_path, "audit", "verify", "--head", *words, path.with_name("audit.jsonl.1"))
        assert done.returncode == 1, words
        assert b"2 entries are missing before the line that --head names" in done.stdout


@pytest.mark.parametrize("action", ["verify", "list", "head", "replay"])
def test_every_subcommand_takes_the_files_in_the_order_of_a_shell(action: str, tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    paths = trail.put({})
    assert paths != [str(trail.folder / name) for name in NAMES]
    given = emupin(tmp_path / "elsewhere", "audit", action, *paths)
    found = emupin(tmp_path, "audit", action)
    assert given.stdout == found.stdout
    assert given.returncode == found.returncode


@pytest.mark.parametrize("action", ["verify", "list", "head", "replay", "show 1"])
def test_every_subcommand_reads_pipes_like_files(action: str, tmp_path: Path) -> None:
    paths = Trail(tmp_path).put({})
    pipes = " ".join(f"<({'zcat' if path.endswith('.gz') else 'cat'} {path})" for path in reversed(paths))
    command = f"{shlex.quote(sys.executable)} -m emupin audit {action}"
    no_place = "sed 's,/[^ ]*:[0-9]*,PLACE,'"
    script = f"{command} {pipes} | {no_place} | diff - <({command} {' '.join(paths)} | {no_place})"
    done = subprocess.run(["bash", "-c", script], env=environment(tmp_path / "no"), capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"", 0)


def test_nothing_is_not_intact(tmp_path: Path) -> None:
    done = emupin(tmp_path, "audit", "verify", "/dev/null")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, b"0 entries: findings: 1")


@pytest.mark.parametrize("action", ["list", "head", "report", "verify"])
def test_a_damaged_head_is_no_head_to_any_reader(action: str, tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    (tmp_path / "var/lib/emupin/audit-head").write_bytes(bytes(65))
    done = emupin(tmp_path, "audit", action, cwd=tmp_path)
    assert (done.returncode, b"outside" in done.stderr, b"broken" in done.stderr) == (0, False, False)
    assert len([*one_trail([], str(tmp_path)).entries(lambda _: None)]) == len(trail.genuine)


def test_a_rotation_while_a_trail_is_read_is_said(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    reading = one_trail([], str(tmp_path)).entries(lambda _: None)
    shown = [next(reading)[1]]
    for older, newer in ((MIDDLE + ".old", MIDDLE), (MIDDLE, NEWEST)):
        (trail.folder / newer).rename(trail.folder / older)
    write(tmp_path, LINES)
    with pytest.raises(HostError, match="was rotated while the trail was read"):
        shown.extend(value for _, value in reading)
    assert shown == trail.genuine[: len(shown)]
