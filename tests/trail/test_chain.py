"""A trail that was tampered with, in whatever way, is found out, and the place is named."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trails import current, entry, kinds, lines_of, proven, write

from emupin import __version__
from emupin.base.jsonline import encode
from emupin.trail.chain import verify
from emupin.trail.findings import Head, Verdict
from emupin.trail.lines import Line, find
from emupin.trail.sources import find_trails
from emupin.trail.spans import Links, chain
from emupin.trail.writer import append, read_head

COUNT = 10_000
STRIDE = 5
"""Lines between two changes that are made at once: far enough that none hides another."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long")
    write(root, COUNT)
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write(tmp_path, 8)
    return tmp_path


def found_lines(verdict: Verdict) -> set[int]:
    """Numbers of the lines that the findings are about, from 0."""
    return {int(each.place.rpartition(":")[2]) - 1 for each in verdict.findings if not each.is_remark}


def verdict_on(tmp_path: Path, lines: list[bytes], root: Path) -> Verdict:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines))
    return proven(path, root)


def test_what_was_written_is_whole(long: Path) -> None:
    verdict = proven(current(long), long)
    assert (verdict.findings, verdict.entries, verdict.head) == ((), COUNT, read_head(str(long)))


# -- every line of a long trail ---------------------------------------------------------------------------------------


def changed(line: bytes, at: int, byte: int) -> bytes:
    return line[:at] + bytes([byte]) + line[at + 1 :]


@pytest.mark.parametrize("offset", range(STRIDE))
def test_a_changed_byte_in_any_line_is_found(offset: int, long: Path, tmp_path: Path) -> None:
    lines, dice = lines_of(current(long)), random.Random(offset)
    places = range(offset, COUNT, STRIDE)
    for place in places:
        at = dice.randrange(len(lines[place]) - 1)
        byte = dice.choice([byte for byte in range(256) if byte not in (10, lines[place][at])])
        lines[place] = changed(lines[place], at, byte)
    found = found_lines(verdict_on(tmp_path, lines, long))
    assert [place for place in places if not found & {place - 1, place}] == []
    assert len(found) <= 2 * len(places), "and nothing else is accused"


@pytest.mark.parametrize("offset", range(STRIDE))
def test_any_deleted_line_is_found(offset: int, long: Path, tmp_path: Path) -> None:
    lines = lines_of(current(long))
    places = range(offset, COUNT, STRIDE)
    kept = [line for place, line in enumerate(lines) if place not in places]
    found = found_lines(verdict_on(tmp_path, kept, long))
    before = [place - number - 1 for number, place in enumerate(places)]
    assert [place for place in before if max(place, 0) not in found] == []
    assert len(found) <= len(places)


@pytest.mark.parametrize("offset", range(STRIDE))
def test_any_swapped_pair_is_found(offset: int, long: Path, tmp_path: Path) -> None:
    lines = lines_of(current(long))
    places = range(offset, COUNT - 1, STRIDE)
    for place in places:
        lines[place : place + 2] = reversed(lines[place : place + 2])
    found = found_lines(verdict_on(tmp_path, lines, long))
    assert [place for place in places if not found & {place, place + 1}] == []


@pytest.mark.parametrize("count", [1, 2, 100, COUNT - 1, COUNT])
def test_a_cut_end_is_found(count: int, long: Path, tmp_path: Path) -> None:
    lines = lines_of(current(long))[: COUNT - count]
    verdict = verdict_on(tmp_path, lines, long)
    assert kinds(verdict) == ["cut"]
    assert verdict.findings[-1].place.endswith(f":{COUNT - count}" if lines else "the trail")


def test_a_cut_end_is_found_with_a_head_from_elsewhere_when_the_trail_went_on(small: Path) -> None:
    exported = read_head(str(small))
    path = current(small)
    path.write_bytes(b"".join(lines_of(path)[:-2]))
    (small / "var/lib/emupin/audit-head").unlink()
    write(small, 3)
    assert exported
    assert kinds(verify([str(path)], read_head(str(small)))) == []
    assert kinds(verify([str(path)], read_head(str(small)), [Head(exported)])) == ["cut"]


def test_an_older_head_from_elsewhere_is_content(small: Path) -> None:
    exported = read_head(str(small))
    write(small, 3)
    assert exported
    assert verify([str(current(small))], None, [Head(exported)]).findings == ()


# -- every byte of some lines -----------------------------------------------------------------------------------------


def test_every_byte_of_a_line_counts(tmp_path: Path) -> None:
    """Line ends too: removed, made, or moved. In the last line as well, which only the head proves."""
    small = tmp_path / "small"
    lines = lines_of(write(small, 4))
    for place in (2, 3):
        for at in range(len(lines[place])):
            for byte in {lines[place][at] ^ 1, 10} - {lines[place][at]}:
                spoilt = [*lines]
                spoilt[place] = changed(lines[place], at, byte)
                found = found_lines(verdict_on(tmp_path, spoilt, small))
                assert found & {place - 1, place, place + 1}, (place, at, byte)


@given(at=st.integers(0, 3), junk=st.binary(max_size=200))
def test_no_bytes_make_it_crash(at: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = lines_of(write(folder, 3))
    lines.insert(at, junk)
    verdict_on(folder, lines, folder)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b'"text"\n',
        b"\x00" * 40 + b"\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"9" * 10_000 + b"\n",
        b'{"previous": 1}\n',
        b'{"previous": NaN}\n',
        b'{"previous": ["a"]}\n',
        b'{"previous": "abc"}\n',
        b'{"op": 1.5, "previous": null}\n',
        b'{"previous": null, "previous": null}\n',
    ],
)
def test_what_is_no_entry_is_said_to_be_none(line: bytes, small: Path, tmp_path: Path) -> None:
    lines = lines_of(current(small))
    lines.insert(4, line)
    verdict = verdict_on(tmp_path, lines, small)
    assert kinds(verdict) == ["inserted"]
    assert verdict.findings[0].place.endswith("audit.jsonl:5")


def test_an_inserted_entry_is_found(small: Path, tmp_path: Path) -> None:
    lines = lines_of(current(small))
    lines.insert(4, lines[2])
    verdict = verdict_on(tmp_path, lines, small)
    assert set(kinds(verdict)) == {"inserted"}
    forged = [*lines_of(current(small))]
    after = Line("", 0, forged[3]).digest
    forged.insert(4, encode({**entry(99), "previous": after}).encode() + b"\n")
    verdict = verdict_on(tmp_path, forged, small)
    assert kinds(verdict) == ["inserted"]
    assert "between" in verdict.findings[0].text


def test_reordered_lines_are_named_so(small: Path, tmp_path: Path) -> None:
    lines = lines_of(current(small))
    lines[3], lines[4] = lines[4], lines[3]
    assert "reordered" in kinds(verdict_on(tmp_path, lines, small))


def test_a_trail_that_starts_anew_is_found(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    lines = lines_of(write(other, 2))
    verdict = verdict_on(tmp_path, [*lines_of(current(small)), *lines], other)
    assert kinds(verdict) == ["anew"]
    assert verdict.findings[0].place.endswith(":9")


def test_removed_first_lines_are_found(small: Path, tmp_path: Path) -> None:
    assert kinds(verdict_on(tmp_path, lines_of(current(small))[1:], small)) == ["missing"]


# -- files ------------------------------------------------------------------------------------------------------------


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def spread(root: Path, names: list[str]) -> list[str]:
    """The small trail in several files, as a rotation leaves them; what is found."""
    path = current(root)
    lines = lines_of(path)
    size = len(lines) // len(names) + 1
    path.unlink()
    for number, name in enumerate(names):
        pack = PACK[Path(name).suffix if Path(name).suffix in PACK else ""]
        path.with_name(name).write_bytes(pack(b"".join(lines[number * size : (number + 1) * size])))
    path.with_name("audit.jsonl.swp").write_text("not one of them")
    path.with_name("other.jsonl").write_text("nor this")
    return find(str(root))


NAMES = [
    ["audit.jsonl.11.gz", "audit.jsonl.2.gz", "audit.jsonl.1", "audit.jsonl"],
    ["audit.jsonl.3.xz", "audit.jsonl.2.bz2", "audit.jsonl.1"],
    ["audit.jsonl-20251231.gz", "audit.jsonl-20260101.gz", "audit.jsonl-20260102", "audit.jsonl"],
    ["audit.jsonl-20260101-1767225600", "audit.jsonl-20260101-1767229200.gz", "audit.jsonl"],
]


@pytest.mark.parametrize("names", NAMES)
def test_rotated_and_compressed_files_are_read_in_their_order(names: list[str], small: Path) -> None:
    files = spread(small, names)
    assert [Path(file).name for file in files] == names
    verdict = verify(files, read_head(str(small)))
    assert (verdict.findings, verdict.entries) == ((), 8)


def test_a_file_that_is_being_compressed_counts_once(small: Path) -> None:
    """logrotate removes the plain file when the other is whole."""
    spread(small, NAMES[0])
    path = current(small).with_name("audit.jsonl.1.gz")
    path.write_bytes(gzip.compress(path.with_name("audit.jsonl.1").read_bytes())[:40])
    for argument in ([], [str(path.parent)]):
        (trail,) = find_trails(argument, str(small))
        verdict = verify(trail.files, read_head(str(small)))
        assert (verdict.findings, verdict.entries) == ((), 8)


@pytest.mark.parametrize("names", NAMES)
def test_older_files_that_were_rotated_away_are_a_remark(names: list[str], small: Path) -> None:
    files = spread(small, names)
    verdict = verify(files[1:], read_head(str(small)))
    assert [finding.kind for finding in verdict.findings] in (["older"], ["missing"])
    assert verdict.is_sound == (names[1] != "audit.jsonl")


def test_a_file_missing_in_the_middle_is_found(small: Path) -> None:
    files = spread(small, NAMES[0])
    verdict = verify([files[0], *files[2:]], read_head(str(small)))
    assert kinds(verdict) == ["changed"]
    assert "audit.jsonl.1:1 were removed" in verdict.findings[0].text


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_damaged_compressed_file_is_a_finding(suffix: str, small: Path) -> None:
    files = spread(small, [f"audit.jsonl.2{suffix}", "audit.jsonl.1", "audit.jsonl"])
    whole = Path(files[0]).read_bytes()
    for damaged in (whole[:-20], whole[:30], changed(whole, len(whole) // 2, whole[len(whole) // 2] ^ 1), b"rubbish"):
        Path(files[0]).write_bytes(damaged)
        assert "damaged" in kinds(verify(files, read_head(str(small))))


# -- trouble that is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 20, 400, -2])
def test_a_torn_line_is_a_remark_before_and_after_it_was_mended(length: int, small: Path) -> None:
    path = current(small)
    lines = lines_of(path)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:length])
    (small / "var/lib/emupin/audit-head").write_text(Line("", 0, lines[-2]).digest)
    verdict = proven(path, small)
    assert ([finding.kind for finding in verdict.findings], verdict.is_sound) == (["torn"], True)
    write(small, 2, 100)
    verdict = proven(path, small)
    assert ([finding.kind for finding in verdict.findings], verdict.is_sound) == (["torn"], True)
    assert verdict.findings[0].place.endswith(":8")


def test_a_whole_entry_without_its_line_end_is_a_finding_until_the_writer_has_mended_it(small: Path) -> None:
    path = current(small)
    lines = lines_of(path)
    path.write_bytes(b"".join(lines)[:-1])
    (small / "var/lib/emupin/audit-head").write_text(Line("", 0, lines[-2]).digest)
    assert kinds(proven(path, small)) == ["unended"]
    write(small, 2, 100)
    verdict = proven(path, small)
    assert ([finding.kind for finding in verdict.findings], verdict.is_sound) == (["torn"], True)
    assert verdict.findings[0].place.endswith(":9")


def test_the_line_before_a_torn_one_is_proved_by_the_mending(small: Path, tmp_path: Path) -> None:
    path = current(small)
    data = path.read_bytes()
    path.write_bytes(data[:-300])
    write(small, 2, 100)
    lines = lines_of(path)
    for place in (6, 7):
        spoilt = [*lines]
        spoilt[place] = lines[place].replace(b"node", b"NODE", 1)
        assert spoilt != lines
        assert kinds(verdict_on(tmp_path, spoilt, small)) != []


def torn(path: Path) -> int:
    """Tear a line at the end; how many there are before it."""
    whole = len(lines_of(path)) if path.exists() else 0
    with path.open("ab") as file:
        file.write(b'{"time": "2026')
    return whole


@pytest.mark.parametrize("rotated", [False, True], ids=["one file", "rotated"])
def test_lines_removed_before_a_torn_one_are_found(rotated: bool, small: Path) -> None:
    path = current(small)
    whole = torn(path)
    for number in range(3):
        append(str(small), entry(20 + number, emupin=__version__))
    files = [path]
    if rotated:
        files = [path.rename(f"{path}.1"), path]
        write(small, 2, 40)
    assert verify([*map(str, files)], read_head(str(small))).is_sound
    files[0].write_bytes(b"".join(lines_of(files[0])[whole:]))
    assert kinds(verify([*map(str, files)], read_head(str(small)))) == ["missing"]


def test_a_rotated_file_that_begins_with_a_torn_line_may_be_the_oldest(small: Path) -> None:
    path = current(small)
    path.rename(f"{path}.2")
    torn(path)
    append(str(small), entry(20, emupin=__version__))
    path.rename(f"{path}.1")
    write(small, 2, 40)
    files = find(str(small))
    assert [found.kind for found in verify(files, read_head(str(small))).findings] == ["torn"]
    assert [found.kind for found in verify(files[1:], read_head(str(small))).findings] == ["older", "torn"]


def test_a_trail_that_begins_with_a_torn_line_is_whole(tmp_path: Path) -> None:
    current(tmp_path).parent.mkdir(parents=True)
    torn(current(tmp_path))
    write(tmp_path, 2)
    assert proven(current(tmp_path), tmp_path).is_sound


def test_two_torn_lines_in_a_row(small: Path) -> None:
    path = current(small)
    head = read_head(str(small))
    for _ in range(2):
        with path.open("ab") as file:
            file.write(b'{"time": "2026')
        write(small, 1, 50)
        lines = lines_of(path)
        path.write_bytes(b"".join(lines[:-2]) + lines[-2][:30])  # The mending itself is torn.
        (small / "var/lib/emupin/audit-head").write_text(head or "")
    write(small, 1, 60)
    verdict = proven(path, small)
    assert verdict.is_sound, verdict.findings
    assert {finding.kind for finding in verdict.findings} == {"torn"}


def test_a_torn_line_at_the_end_of_a_rotated_file(small: Path) -> None:
    path = current(small)
    head = Line("", 0, lines_of(path)[-2]).digest
    path.write_bytes(path.read_bytes()[:-300])
    (small / "var/lib/emupin/audit-head").write_text(head)
    path.rename(f"{path}.1")
    write(small, 2, 100)
    verdict = verify(find(str(small)), read_head(str(small)))
    assert ([finding.kind for finding in verdict.findings], verdict.is_sound) == (["torn"], True)


def test_lost_entries_are_a_finding(small: Path) -> None:
    lost = small / "run/emupin/audit-lost"
    lost.mkdir(parents=True)
    for time in ("2026-11-22T10:01:00Z", "2026-11-22T10:00:00Z"):
        (lost / f"{time}_4242").touch()
    write(small, 1, 50)
    verdict = proven(current(small), small)
    assert kinds(verdict) == ["lost"]
    assert verdict.findings[0].text == "2 entries could not be written, the first at 2026-11-22T10:00:00Z"


def test_an_end_that_was_cut_off_is_told_of_by_the_next_entry(small: Path) -> None:
    path = current(small)
    path.write_bytes(b"".join(lines_of(path)[:-2]))
    write(small, 2, 50)
    verdict = proven(path, small)
    assert kinds(verdict) == ["lost"]
    assert "entries at the end are missing" in verdict.findings[0].text
    assert verdict.findings[0].place.endswith(":7")


def test_a_rotated_file_whose_end_was_cut_off_is_found(small: Path) -> None:
    path = current(small)
    path.with_name("audit.jsonl.1").write_bytes(b"".join(lines_of(path)[:-2]))
    path.unlink()
    write(small, 2, 50)
    verdict = verify(find(str(small)), read_head(str(small)))
    assert kinds(verdict) == ["changed"]
    assert verdict.findings[0].place.endswith("audit.jsonl.1:6")


def test_a_writer_that_was_killed_before_it_kept_the_head_is_no_trouble(small: Path) -> None:
    head = Line("", 0, lines_of(current(small))[-3]).digest
    (small / "var/lib/emupin/audit-head").write_text(head)
    verdict = proven(current(small), small)
    assert ([finding.kind for finding in verdict.findings], verdict.is_sound) == (["head"], True)
    write(small, 2, 50)
    assert proven(current(small), small).findings == ()


# -- which lines are the chain ----------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(2, 60), st.integers(0, 60), max_size=20), st.integers(1, 60))
def test_the_size_of_a_chain_is_the_number_of_its_lines(targets: dict[int, int], end: int) -> None:
    links = Links({start: target if target < start else 0 for start, target in targets.items()})
    for each in (60, 30, end):
        assert links.size(each) == sum(last - first + 1 for first, last in links.back(each))


def test_a_trail_in_pieces_is_proven_in_no_time() -> None:
    pieces = Links({start: start - 2 for start in range(3, 40_000, 2)})
    assert len(chain(pieces, 40_000, [], False)) == 20_000
