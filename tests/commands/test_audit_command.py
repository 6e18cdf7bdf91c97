"""`emupin audit list`, `show`, `verify` and `head`, on the trail that the hook leaves."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from command import emupin
from hosts import UUID, Host, domain_xml
from trails import current, entry, lines_of, write

from emupin.base.errors import EmupinError
from emupin.screen.entrytext import row
from emupin.trail import writer
from emupin.trail.chain import verify
from emupin.trail.lines import Line
from emupin.trail.query import moment, time_asked

NASTY = "nfv-\x1b]0;owned\x07\n<b>"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Three guests, one after the other: one rewritten, one in place already, one whose XML is broken."""
    host = Host(tmp_path_factory.mktemp("host"))
    host.set_policy()
    host.call("prepare", domain_xml())
    host.call("release", domain_xml())
    host.call("migrate", domain_xml("nfv-2", "2", UUID.replace("5a", "6b")), "nfv-2")
    host.call("restore", "<domain", "nfv-3")
    assert len(host.audit()) == 3
    return host


def audit(host: Host, *args: str | Path) -> tuple[int, str, str]:
    done = emupin(host.root, "audit", *args)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def listed(host: Host, *args: str) -> list[str]:
    status, output, error = audit(host, "list", *args)
    assert (status, error) == (0, "")
    return [name for line in output.splitlines() for name in re.findall("nfv-[0-9]", line)[:1]]


def test_a_list_has_a_line_for_each_entry(host: Host) -> None:
    status, output, error = audit(host, "list")
    assert (status, error) == (0, "")
    lines = output.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"[0-9a-f]{8}  20..-..-.. ..:..:..  nfv-1 +prepare +decided +2-5 -> 2 +rule 'nfv' says vcpu:0", lines[0]
    )
    assert "failed" in lines[2]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--guest", "nfv-2"], ["nfv-2"]),
        (["--guest", UUID], ["nfv-1"]),
        (["--rule", "nfv"], ["nfv-1", "nfv-2"]),
        (["--outcome", "failed"], ["nfv-3"]),
        (["--op", "migrate"], ["nfv-2"]),
        (["--op", "migrate", "--outcome", "failed"], []),
        (["--since", "1h"], ["nfv-1", "nfv-2", "nfv-3"]),
        (["--until", "1h"], []),
        (["--since", "2999-01-01"], []),
        (["--until", "2999-01-01T00:00:00+02:00"], ["nfv-1", "nfv-2", "nfv-3"]),
    ],
)
def test_a_list_can_be_filtered(options: list[str], names: list[str], host: Host) -> None:
    assert listed(host, *options) == names


def test_json_has_the_entry_and_its_place(host: Host) -> None:
    found = [json.loads(line) for line in audit(host, "list", "--json")[1].splitlines()]
    lines = lines_of(current(host.root))
    assert [each["line"] for each in found] == [1, 2, 3]
    assert [each["hash"] for each in found] == [Line("", 0, line).digest for line in lines]
    assert [{**json.loads(line), **each} for line, each in zip(lines, found)] == found


@pytest.mark.parametrize("text", ["yesterday", "12", "2026-13-01", "5y", ""])
def test_what_is_no_time_is_said_to_be_none(text: str, host: Host) -> None:
    status, _, error = audit(host, "list", "--since", text)
    assert status == 2
    assert "is not a time; write 2026-11-22" in error


def test_times() -> None:
    now = datetime(2026, 11, 22, tzinfo=timezone.utc)
    assert time_asked("2h", "", now) == now - timedelta(hours=2)
    assert time_asked("7d", "", now) == now - timedelta(days=7)
    assert time_asked("999999w", "", now) == datetime.min.replace(tzinfo=timezone.utc)
    assert moment("2026-11-22T02:00:00.123456789+02:00") == now.replace(microsecond=123456)
    assert moment("2026-11-22") == now
    assert moment(5) is moment("soon") is None
    with pytest.raises(EmupinError):
        time_asked("soon", "--since", now)


@pytest.mark.parametrize("width", [80, 200])
def test_a_line_fits_and_is_escaped(width: int) -> None:
    value = {**entry(1), "name": NASTY, "reason": "x\n" * 300, "op": ["odd"], "before": 5}
    text = row(Line("f", 1, b""), value, width, False)
    assert len(text) <= width
    assert text.isprintable()
    assert "nfv-\\x1b]0;ow" in text


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_has_all_of_it(host: Host) -> None:
    status, output, error = audit(host, "show", "--guest", "nfv-1")
    assert (status, error) == (0, "")
    for text in (
        "rule 'nfv' says vcpu:0",
        "-    <emulatorpin cpuset='2-5'/>",
        "+    <emulatorpin cpuset='2'/>",
        "policy in force",
        '    match: {name: "nfv-*"}',
        UUID,
        "its emulator threads stay",
    ):
        assert text in output
    assert "hunter2" not in output


def test_show_has_the_vhost_workers_and_what_was_decided_and_not_carried_out(tmp_path: Path) -> None:
    value = {**entry(1), "after": "2-5", "vhost": "6", "decided": {"after": "2", "reason": "rule 'nfv' says vcpu:0"}}
    path = tmp_path / "audit.jsonl"
    path.write_text(json.dumps({**value, "previous": None}) + "\n")
    _, output, _ = audit(Host(tmp_path / "other"), "show", "--last", str(path))
    assert "  vhost     6\n" in output
    assert "  decided   2: rule 'nfv' says vcpu:0; it was not carried out\n" in output


@pytest.mark.parametrize(("which", "name"), [(["1"], "nfv-3"), (["3"], "nfv-1"), (["--last"], "nfv-3")])
def test_show_counts_from_the_end(which: list[str], name: str, host: Host) -> None:
    status, output, _ = audit(host, "show", *which)
    assert (status, re.findall("nfv-[0-9]", output)[0]) == (0, name)


def test_show_takes_the_start_of_a_hash_and_files(host: Host) -> None:
    line = lines_of(current(host.root))[1]
    short = Line("", 0, line).digest[:8]
    assert "nfv-2" in audit(host, "show", short, current(host.root))[1]
    assert json.loads(audit(host, "show", short, "--json")[1])["name"] == "nfv-2"
    assert "nfv-3" in audit(host, "show", "--last", current(host.root))[1]


@pytest.mark.parametrize("which", [["0"], ["9"], ["ffffffffff"], ["--guest", "nobody"]])
def test_show_says_that_there_is_none(which: list[str], host: Host) -> None:
    assert audit(host, "show", *which)[::2] == (
        2,
        "the audit trail: has no matching entry; `emupin audit list` shows the entries\n",
    )


def test_show_does_without_what_is_not_kept_or_was_changed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.set_policy()
    host.call("prepare", domain_xml())
    for path in (tmp_path / "var/lib/emupin").glob("*/*.*"):
        path.write_bytes(path.read_bytes() + b"\n")
    status, output, _ = audit(host, "show", "1")
    assert status == 0
    assert " ".join(output.split()).count("its digest differs") == 2
    for path in (tmp_path / "var/lib/emupin").glob("*/*.*"):
        path.unlink()
    assert " ".join(audit(host, "show", "1")[1].split()).count("is not saved in") == 2


@pytest.mark.parametrize(
    "more",
    [
        {"policy": "../../../etc/passwd", "topology": "x" * 64},
        {"facts": None, "topology": 5},
        {"facts": {"vcpus": 10**9}, "warnings": 5, "diff": {"a": 1}},
        {"before": ["a"], "after": "9-1", "name": {"a": None}, "reason": NASTY, "time": 7},
    ],
)
def test_no_entry_makes_it_crash(more: dict[str, object], host: Host, tmp_path: Path) -> None:
    """A well-formed line may still hold anything: nobody has to have written it with emupin."""
    value = {**json.loads(lines_of(current(host.root))[0]), **more}
    value.pop("previous")
    writer.append(str(tmp_path), value)
    for action in (["show", "1"], ["show", "--json", "1"], ["list"], ["list", "--since", "1h"], ["verify"], ["head"]):
        status, output, error = audit(host, *action, current(tmp_path))
        assert status == 0, error
        assert "\x1b" not in output
        assert "Traceback" not in error


# -- verify, head -----------------------------------------------------------------------------------------------------


def test_verify_and_head(host: Host) -> None:
    status, output, error = audit(host, "verify")
    assert (status, output, error) == (0, "3 entries: the chain is intact\n", "")
    status, output, error = audit(host, "head")
    digest, count, time = output.split()
    assert (status, error, count, time[-1]) == (0, "", "3", "Z")
    assert verify([str(current(host.root))]).head == digest
    assert audit(host, "verify", "--head", digest)[0] == 0
    assert audit(host, "verify", "--head", "0" * 64)[0] == 1
    assert audit(host, "verify", "--head", "0")[::2] == (
        2,
        "--head 0: is not a hash; give what `emupin audit head` printed: 64 digits, and the count behind them\n",
    )


def test_verify_tells_what_and_where(tmp_path: Path) -> None:
    host = Host(tmp_path)
    path = write(tmp_path, 6)
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    status, output, error = audit(host, "verify")
    assert (status, error) == (1, "")
    first, last = output.splitlines()
    assert first.startswith(f"{path}:2: changed: was changed, or entries between it and {path}:3 were removed")
    assert last == "5 entries: findings: 1"
    found = json.loads(audit(host, "verify", "--json")[1])
    assert (found["whole"], found["entries"], [each["kind"] for each in found["findings"]]) == (False, 5, ["changed"])
    assert audit(host, "list")[0] == 0


def test_verify_of_files_says_that_it_has_no_head(tmp_path: Path) -> None:
    host = Host(tmp_path / "here")
    status, output, error = audit(host, "verify", write(tmp_path, 2))
    assert (status, output) == (0, "2 entries: the chain is intact\n")
    assert "no head to compare with" in error


def test_a_trail_that_was_removed_is_found(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(tmp_path, 2).unlink()
    status, output, _ = audit(host, "verify")
    assert (status, "is missing: the end was removed" in output) == (1, True)


@pytest.mark.parametrize("action", ["list", "show", "verify", "head"])
def test_a_host_without_a_trail(action: str, tmp_path: Path) -> None:
    host = Host(tmp_path)
    args = ["1"] if action == "show" else []
    status, output, error = audit(host, action, *args)
    assert (status, output) == (2, "")
    assert "there is no audit trail; no decision was made yet" in error
    status, _, error = audit(host, action, *args, "missing-file")
    assert (status, "missing-file: cannot be read: No such file" in error) == (2, True)


def test_lines_that_are_no_entries_are_counted(tmp_path: Path) -> None:
    host = Host(tmp_path)
    path = write(tmp_path, 2)
    path.write_bytes(path.read_bytes() + b"torn")
    status, output, error = audit(host, "list")
    assert (status, len(output.splitlines())) == (0, 2)
    assert error == "lines outside the verified chain, not shown: 1; `emupin audit verify` says where\n"
