"""`emupin rewrite`, as a user starts it."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import AFTER, BEFORE, automatic, emupin, environment, guest, make_root

from emupin.fleet.batch import Batch

CHANGED = guest().replace(BEFORE, AFTER)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "guests"
    folder.mkdir()
    return folder


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# -- one document -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [(), ("-",)])
def test_filter(root: Path, args: tuple[str, ...]) -> None:
    done = emupin(root, "rewrite", *args, data=guest())
    assert (done.returncode, done.stdout, done.stderr) == (0, CHANGED, b"")


@pytest.mark.parametrize("data", [CHANGED, guest("other"), guest("other").replace(b"\n", b"\r\n")])
def test_unchanged_goes_through(root: Path, data: bytes) -> None:
    assert emupin(root, "rewrite", data=data).stdout == data


def test_large_document_from_a_pipe(root: Path) -> None:
    padding = b"<!--" + b"x" * (5 << 20) + b"-->"
    assert emupin(root, "rewrite", data=guest() + padding).stdout == CHANGED + padding


def test_too_large(root: Path) -> None:
    done = emupin(root, "rewrite", data=guest() + b" " * (16 << 20))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"larger than 16 MiB" in done.stderr


@pytest.mark.parametrize("data", [b"", b"<domain>", b"<network/>", b"<!DOCTYPE domain><domain/>"])
def test_bad_input_prints_nothing(root: Path, data: bytes) -> None:
    done = emupin(root, "rewrite", data=data)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"-:1")


def test_one_file_and_a_pipe_as_a_file(root: Path, folder: Path) -> None:
    path = write(folder / "a.xml", guest())
    assert emupin(root, "rewrite", path).stdout == CHANGED
    pipe = folder / "fifo"
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", path, pipe]):
        assert emupin(root, "rewrite", pipe).stdout == CHANGED


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("a.xml", "b.xml"), b"give --diff, --check or --in-place"),
        (("sub",), b"give --diff, --check or --in-place"),
        (("--in-place",), b"stdin cannot be replaced"),
        (("--in-place", "-"), b"stdin cannot be replaced"),
        (("--check", "-", "a.xml"), b"cannot be combined with other files"),
        (("--sync", "a.xml"), b"--sync without --in-place"),
        (("--host", "recorded.json", "a.xml"), b"recorded.json: cannot be read"),
        (("missing.xml",), b"missing.xml: No such file or directory"),
    ],
)
def test_what_cannot_be_asked_for(root: Path, folder: Path, args: tuple[str, ...], message: bytes) -> None:
    for name in ("a.xml", "b.xml", "sub/c.xml"):
        write(folder / name, guest())
    done = emupin(root, "rewrite", *args, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert message in done.stderr


# -- decisions --------------------------------------------------------------------------------------------------------


def test_no_placement_passes(root: Path) -> None:
    done = emupin(root, "rewrite", data=guest("bad-1"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"-: rule 'impossible': no placement passes its checks (vcpu:7: " in done.stderr


def test_warning(root: Path) -> None:
    done = emupin(root, "rewrite", data=guest("warned-1"))
    assert (done.returncode, done.stderr) == (0, b"-: cpus:5: vCPU 1 runs on CPU 5\n")
    assert b"<emulatorpin cpuset='5'/>" in done.stdout


def test_guest_from_a_larger_host(tmp_path: Path) -> None:
    laptop = make_root(tmp_path / "root", online="0-3")
    done = emupin(laptop, "rewrite", data=guest())
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"pinned to CPUs 4-5, which this host does not have" in done.stderr
    assert b"use --host with a snapshot of the host it runs on" in done.stderr
    assert b"--host none" in done.stderr
    assert emupin(laptop, "rewrite", "--host", "none", data=guest()).stdout == CHANGED


def test_text_of_a_guest_is_escaped(root: Path) -> None:
    done = emupin(root, "rewrite", data=guest("bad-1"), cwd=root)
    assert b"\x1b" not in done.stderr
    done = emupin(root, "rewrite", "\x1b[2J.xml")
    assert b"\\x1b[2J.xml: No such file" in done.stderr


# -- several files ----------------------------------------------------------------------------------------------------


def test_check(root: Path, folder: Path) -> None:
    write(folder / "a.xml", guest())
    write(folder / "b.xml", CHANGED)
    write(folder / "sub/c.xml", guest())
    done = emupin(root, "rewrite", "--check", ".", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"./a.xml\n./sub/c.xml\n", b"")
    assert emupin(root, "rewrite", "--check", folder / "b.xml").returncode == 0
    assert emupin(root, "rewrite", "--check", data=guest()).returncode == 1
    assert (folder / "a.xml").read_bytes() == guest()


def test_one_bad_file_does_not_stop_the_others(root: Path, folder: Path) -> None:
    write(folder / "a.xml", guest())
    write(folder / "b.xml", b"<domain>")
    write(folder / "c.xml", guest("bad-1"))
    write(folder / "d.xml", guest())
    done = emupin(root, "rewrite", "--in-place", ".", "missing", cwd=folder)
    assert done.returncode == 2
    assert [line.split(b": ")[0] for line in done.stderr.splitlines()] == [b"./b.xml:1:9", b"./c.xml", b"missing"]
    assert (folder / "b.xml").read_bytes() == b"<domain>"
    assert (folder / "c.xml").read_bytes() == guest("bad-1")
    assert (folder / "a.xml").read_bytes() == (folder / "d.xml").read_bytes() == CHANGED


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_order_does_not_depend_on_jobs(root: Path, folder: Path, jobs: str) -> None:
    for number in range(700):
        write(folder / f"{number % 3}/{number:03}.xml", guest())
    write(folder / "1/broken.xml", b"?")
    done = emupin(root, "rewrite", "--check", "--jobs", jobs, folder)
    found = done.stdout.decode().splitlines()
    assert (len(found), found) == (700, sorted(found))
    assert done.returncode == 2
    done = emupin(root, "rewrite", "--in-place", "--diff", "--jobs", jobs, folder)
    assert done.stdout.count(b"\n+++ ") == 700
    assert all(path.read_bytes() == CHANGED for path in folder.glob("*/???.xml"))


def test_libvirts_folder_of_definitions(root: Path, folder: Path) -> None:
    """With its links to guests that start by themselves, and its networks; those are documents of their own."""
    qemu = folder / "qemu"
    write(qemu / "a.xml", guest())
    write(qemu / "networks/default.xml", b"<network><name>default</name></network>")
    (qemu / "autostart").mkdir()
    (qemu / "autostart/a.xml").symlink_to("../a.xml")
    done = emupin(root, "rewrite", "--check", qemu)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{qemu}/a.xml\n".encode(), b"")
    for words in ([qemu / "networks"], [qemu / "networks/default.xml"], [qemu, qemu / "networks/default.xml"]):
        done = emupin(root, "rewrite", "--check", *words)
        assert (done.returncode, done.stderr.count(b"the root element is <network>")) == (2, 1)


def test_empty_folder(root: Path, folder: Path) -> None:
    done = emupin(root, "rewrite", "--check", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"there is no *.xml file\n")


# -- diffs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [["patch", "-p1", "--binary", "-s"], ["git", "apply"]])
def test_diff_applies(root: Path, folder: Path, tool: list[str]) -> None:
    documents = {
        "plain.xml": guest(),
        "with blank.xml": guest(),
        "crlf.xml": guest().replace(b"\n", b"\r\n"),
        "latin-1.xml": b"<?xml version='1.0' encoding='iso-8859-1'?>\n"
        + guest().replace(b"<vcpu>", b"<title>\xe4</title><vcpu>"),
        "one line.xml": guest().replace(b"\n", b""),
        "sub/no newline at end.xml": guest().rstrip(),
        "no-pin.xml": guest().replace(BEFORE, b""),
        "n\xe4me.xml": guest(),
    }
    for name, data in documents.items():
        write(folder / name, data)
    diff = emupin(root, "rewrite", "--diff", ".", cwd=folder)
    assert (diff.returncode, diff.stderr) == (0, b"")
    subprocess.run(
        tool, input=diff.stdout, cwd=folder, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder)}
    )
    for name, data in documents.items():
        assert (folder / name).read_bytes() == emupin(root, "rewrite", data=data).stdout, name


def test_diff_of_stdin(root: Path) -> None:
    done = emupin(root, "rewrite", "--diff", data=guest())
    assert done.stdout.splitlines()[:3] == [b"--- a/-", b"+++ b/-", b"@@ -4,6 +4,6 @@"]
    assert (done.returncode, emupin(root, "rewrite", "--diff", "--check", data=guest()).returncode) == (0, 1)


# -- in place ---------------------------------------------------------------------------------------------------------


def test_in_place_keeps_what_belongs_to_the_file(root: Path, folder: Path) -> None:
    path = write(folder / "a.xml", guest())
    path.chmod(0o664)
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("a file system without extended attributes")
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    before = path.stat()
    done = emupin(root, "rewrite", "--in-place", "--sync", path)
    after = path.stat()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert path.read_bytes() == CHANGED
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.getxattr(path, "user.note") == b"kept"
    assert after.st_ino != before.st_ino
    assert names(folder) == ["a.xml"]


def test_in_place_twice_writes_once(root: Path, folder: Path) -> None:
    path = write(folder / "a.xml", guest())
    emupin(root, "rewrite", "--in-place", folder)
    before = path.stat()
    assert emupin(root, "rewrite", "--in-place", folder).returncode == 0
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_in_place_replaces_the_target_of_a_link(root: Path, folder: Path) -> None:
    target = write(folder / "elsewhere/a.xml", guest())
    link = folder / "guests/a.xml"
    link.parent.mkdir()
    link.symlink_to("../elsewhere/a.xml")
    assert emupin(root, "rewrite", "--in-place", folder / "guests").returncode == 0
    assert link.is_symlink()
    assert target.read_bytes() == CHANGED
    assert names(link.parent) == ["a.xml"]


def test_in_place_with_the_longest_name(root: Path, folder: Path) -> None:
    path = write(folder / ("ä" * 125 + ".xml"), guest())
    assert emupin(root, "rewrite", "--in-place", path).returncode == 0
    assert path.read_bytes() == CHANGED


@pytest.mark.parametrize("kind", ["fifo", "folder link loop"])
def test_in_place_needs_a_file(root: Path, folder: Path, kind: str) -> None:
    path = folder / "a.xml"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("a.xml")
    done = emupin(root, "rewrite", "--in-place", path)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def fill_up(path: Path) -> None:
    """Leave no room on the file system of `path`."""
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_in_place_on_a_full_file_system(root: Path, folder: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = write(folder / "a.xml", guest())
        fill_up(folder / "filler")
        done = emupin(root, "rewrite", "--in-place", path)
        assert done.returncode == 2
        assert b"a.xml: No space left on device; free some space" in done.stderr
        assert (path.read_bytes(), names(folder)) == (guest(), ["a.xml", "filler"])
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_whole_files_only(root: Path, folder: Path, jobs: str, number: int) -> None:
    for index in range(4000):
        write(folder / f"{index}.xml", guest())
    command = [sys.executable, "-m", "emupin", "rewrite", "--in-place", "--jobs", jobs, str(folder)]
    with subprocess.Popen(command, env=environment(root), stderr=subprocess.PIPE) as process:
        while not any(path.read_bytes() == CHANGED for path in folder.glob("10*.xml")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        assert process.stderr is not None
        complaints = process.stderr.read()
    contents = [path.read_bytes() for path in folder.iterdir()]
    assert (process.returncode, complaints, len(contents)) == (128 + number, b"", 4000)
    assert set(contents) == {guest(), CHANGED}


def test_hangup_that_is_ignored_stays_ignored(root: Path, folder: Path) -> None:
    path = write(folder / "a.xml", guest())
    script = "trap '' HUP; exec \"$@\""
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "emupin", "rewrite", "--in-place", str(path)]
    assert subprocess.run(command, env=environment(root), check=False).returncode == 0


# -- a terminal -------------------------------------------------------------------------------------------------------


def test_progress_and_escapes_on_a_terminal(root: Path, folder: Path) -> None:
    write(folder / "a.xml", guest())
    write(folder / "b.xml", guest().replace(BEFORE, BEFORE + b"<!-- \xc2\x9b31m -->"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "emupin", "rewrite", "--diff", str(folder)]
    done = subprocess.run(command, env=environment(root), stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    assert done.returncode == 0
    assert "\\x9b31m" in shown
    assert "2 files, 2 would change" in shown


def test_a_bug_costs_one_document() -> None:
    batch = Batch()

    def broken(path: str, _batch: Batch) -> bytes:
        if path == "bad.xml":
            raise ZeroDivisionError("never foreseen")
        return b"good\n"

    for path in ("bad.xml", "good.xml"):
        batch.add(path, broken)
    assert (batch.files, batch.failed, batch.output) == (2, 1, b"good\n")
    (remark,) = batch.remarks
    assert remark.startswith("bad.xml: ZeroDivisionError: never foreseen (a bug of emupin's: please report it)")
    assert "test_rewrite.py" in remark, "with its traceback"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_guests_of_unraid_can_be_validated(root: Path, folder: Path, jobs: str) -> None:
    odd = guest().replace(b"<vcpu", b"<metadata><vmtemplate xmlns='unraid' name='x'/></metadata><vcpu", 1)
    for number in range(3):
        (folder / f"unraid-{number}.xml").write_bytes(odd)
    done = emupin(root, "rewrite", "--check", "--validate", "--jobs", jobs, folder)
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr


def test_libvirts_own_definitions_are_said_to_have_no_effect_yet(root: Path) -> None:
    folder = root / "etc/libvirt/qemu"
    folder.mkdir(parents=True)
    (folder / "instance-1.xml").write_bytes(guest())
    done = emupin(root, "rewrite", "--in-place", folder)
    assert done.returncode == 0
    assert b"1 file of libvirt's own definitions changed" in done.stderr
    assert b"`emupin apply --all --yes`" in done.stderr
    assert emupin(root, "rewrite", "--in-place", folder).stderr == b"", "nothing changes the second time"


@pytest.mark.parametrize("kind", ["lxc", "xen", "bhyve"])
def test_guests_of_other_drivers_are_left_as_they_are(root: Path, folder: Path, kind: str) -> None:
    path = folder / "other.xml"
    path.write_bytes(guest().replace(b"type='kvm'", f"type='{kind}'".encode()))
    done = emupin(root, "rewrite", path)
    assert (done.returncode, done.stdout) == (0, path.read_bytes())
    assert f"type '{kind}' is none of the QEMU driver's".encode() in done.stderr


def test_a_guest_that_waits_for_numad_is_left_as_it_is(root: Path) -> None:
    done = emupin(root, "rewrite", data=automatic())
    assert (done.returncode, done.stdout) == (0, automatic())
    assert done.stderr.startswith(b"-: rule 'nfv': no placement passes its checks (vcpu:0: ")
    assert done.stderr.endswith(b"; numad has not chosen the CPUs of its vCPUs yet: decided when it has started\n")


def test_a_pin_that_takes_the_vcpus_from_numad_is_told_of(tmp_path: Path) -> None:
    """`<numatune><memory placement='auto'/>` places vCPUs as well, as long as nothing is pinned."""
    root = make_root(tmp_path, policy='version: 1\nrules:\n  - {name: all, placement: "cpus:3"}\n')
    numa = b"<numatune><memory mode='strict' placement='auto'/></numatune>"
    said = b"with a pin libvirt no longer lets numad place the vCPUs: write <vcpu placement='auto'> to keep that"
    for vcpu, told in ((b"<vcpu>2</vcpu>", True), (b"<vcpu placement='auto'>2</vcpu>", False)):
        done = emupin(root, "rewrite", data=b"<domain type='kvm'><name>a</name>" + vcpu + numa + b"</domain>")
        assert b"<emulatorpin cpuset='3'/>" in done.stdout
        assert (said in done.stderr) is told
