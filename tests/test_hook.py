"""The hook as a whole process, called as libvirt calls it, below a root folder of its own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hosts import HOOK, POLICY, PROJECT, UUID, Answer, Host, domain_xml, python

from emupin import hook
from emupin.node import postponed, store

REFUSE = POLICY.replace("rules:", "defaults: {on_failure: refuse}\nrules:")
IMPOSSIBLE = '["vcpu:7", "cpus:3"]'


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.set_policy()
    return host


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore"])
def test_the_pin_is_rewritten_and_nothing_else(host: Host, operation: str) -> None:
    answer = host.call(operation, domain_xml())
    assert (answer.status, answer.error) == (0, "")
    assert answer.output == domain_xml(emulatorpin="2")
    (entry,) = host.audit()
    assert entry["op"] == operation
    assert entry["outcome"] == ("decided" if operation == "prepare" else "rewritten")
    assert (entry["before"], entry["after"]) == ("2-5", "2")
    assert entry["diff"] == ["-    <emulatorpin cpuset='2-5'/>", "+    <emulatorpin cpuset='2'/>"]
    assert entry["reason"] == "rule 'nfv' says vcpu:0"


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore"])
def test_nothing_is_printed_where_nothing_changes(host: Host, operation: str) -> None:
    assert host.call(operation, domain_xml(emulatorpin="2")).output == ""
    assert [entry["outcome"] for entry in host.audit()] == ["unchanged"]


def test_line_ends_at_the_end_survive_the_shell(host: Host) -> None:
    answer = host.call("migrate", domain_xml() + "\n\n<!-- end. -->\n\n\n")
    assert answer.output == domain_xml(emulatorpin="2") + "\n\n<!-- end. -->\n\n\n"


@pytest.mark.parametrize("operation", ["start", "stopped", "release", "unknown", ""])
def test_operations_without_work_do_not_start_python(host: Host, operation: str) -> None:
    python_ran = host.root / "python-ran"
    host.hook = changed_hook(
        host.root, "python=/usr/bin/python3", f"python={script(host.root / 'touch', f': > {python_ran}')}"
    )
    assert host.call(operation, domain_xml()) == Answer(0, "", "")
    assert not python_ran.exists()
    host.call("prepare", domain_xml())
    assert python_ran.exists(), "this test can fail"


def changed_hook(folder: Path, old: str, new: str) -> Path:
    """A copy of the hook with one line changed, as an administrator's mistake or an upgrade may leave it."""
    text = HOOK.read_text().replace("\nlib=\n", f"\nlib='{PROJECT / 'src'}'\n") if old != "lib=" else HOOK.read_text()
    assert f"\n{old}\n" in text
    hook = folder / "qemu"
    hook.write_text(text.replace(f"\n{old}\n", f"\n{new}\n"))
    hook.chmod(0o755)
    return hook


def test_without_a_policy_nothing_happens(tmp_path: Path) -> None:
    host = Host(tmp_path)
    answer = host.call("prepare", "not even XML")
    assert (answer.status, answer.output, answer.error) == (0, "", "")
    assert not host.audit()


def test_a_guest_that_no_rule_takes_is_left_alone(host: Host) -> None:
    answer = host.call("prepare", domain_xml("web-1"), "web-1")
    assert (answer.status, answer.output, answer.error) == (0, "", "")
    assert not host.audit()


BROKEN_XML = [
    b"",
    b"<domain",
    b"<!DOCTYPE domain [<!ENTITY a 'b'>]><domain/>",
    domain_xml().encode("utf-16"),
    b"<domain><name>nfv-1</name><cputune><emulatorpin cpuset='9-1'/></cputune></domain>",
]


@pytest.mark.parametrize("data", BROKEN_XML)
def test_broken_xml_never_stops_a_start(host: Host, data: bytes) -> None:
    answer = host.call("restore", data)
    assert (answer.status, answer.output, answer.error) == (0, "", "")
    assert host.audit()[-1]["outcome"] == "failed"


def test_nothing_on_stdin_is_told_once(host: Host) -> None:
    """A site's own hook that runs `qemu.d/*` leaves nothing to the second of them, at each call of each guest."""
    for operation in ("prepare", "started", "prepare", "release"):
        assert host.call(operation, b"") == Answer(0, "", "")
    (entry,) = host.audit()
    assert "nothing on stdin" in str(entry["reason"])
    assert "runs qemu.d/* itself" in str(entry["reason"])


@pytest.mark.parametrize("data", BROKEN_XML)
def test_broken_xml_is_refused_where_the_policy_says_so(host: Host, data: bytes) -> None:
    host.set_policy(REFUSE)
    answer = host.call("restore", data)
    assert (answer.status, answer.output) == (1, "")
    assert answer.error.startswith("emupin: domain XML of nfv-1")
    assert answer.error.count("\n") == 1
    assert host.audit()[-1]["outcome"] == "refused"


def test_a_placement_that_cannot_be_is_trouble(host: Host) -> None:
    host.set_policy(POLICY.replace('["vcpu:0"]', IMPOSSIBLE))
    answer = host.call("prepare", domain_xml())
    assert (answer.status, answer.output, answer.error) == (0, "", "")
    assert host.audit()[-1]["outcome"] == "failed"
    assert "cpus:3: vCPU 1 runs on CPU 3" in str(host.audit()[-1]["reason"])


def reasons(host: Host, *operations: str) -> list[str]:
    """What the trail gives as the reasons of calls that fail."""
    for operation in operations:
        assert host.call(operation, domain_xml()).status == 0
    entries = host.audit()[-len(operations) :]
    assert [(each["op"], each["outcome"]) for each in entries] == [(each, "failed") for each in operations]
    return [str(each["reason"]) for each in entries]


def test_one_failure_is_told_in_full_once_a_start(host: Host) -> None:
    """Each step of a start decides anew, and fails alike."""
    host.set_policy(POLICY.replace('["vcpu:0"]', IMPOSSIBLE))
    full, short = "cpus:3: vCPU 1 runs on CPU 3", "guest nfv-1: the same failure as at {}, see the audit trail"
    first, second = reasons(host, "prepare", "started")
    assert (full in first, second) == (True, short.format("prepare"))
    assert full in str(host.audit()[-1]["decided"]), "what was decided is with each entry"
    assert reasons(host, "reconnect") == [short.format("prepare")]
    host.call("release", domain_xml())
    assert full in reasons(host, "prepare")[0], "another start"
    assert full in reasons(host, "prepare")[0], "and one that nobody has released"
    first, *others = reasons(host, "migrate", "prepare", "started")
    assert (full in first, others) == (True, [short.format("migrate")] * 2)
    host.set_policy(POLICY.replace('["vcpu:0"]', '["cpus:4"]'))
    assert "cpus:4: vCPU 2 runs on CPU 4" in reasons(host, "started")[0], "another failure"


def test_what_the_trail_could_not_take_is_told_in_full_again(host: Host) -> None:
    host.set_policy(POLICY.replace('["vcpu:0"]', IMPOSSIBLE))
    host.write("var/log/emupin", "not a folder")
    host.call("prepare", domain_xml())
    (host.root / "var/log/emupin").unlink()
    assert "cpus:3: vCPU 1 runs on CPU 3" in reasons(host, "started")[0]


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore", "started"])
def test_trouble_refuses_a_start_where_the_policy_says_so(host: Host, operation: str) -> None:
    host.set_policy(REFUSE.replace('["vcpu:0"]', IMPOSSIBLE))
    answer = host.call(operation, domain_xml())
    assert (answer.status, answer.output) == (1, "")
    assert answer.error == (
        "emupin: guest nfv-1: rule 'nfv': no placement passes its checks (vcpu:7: the guest has 4 vCPUs, numbered "
        "from 0; cpus:3: vCPU 1 runs on CPU 3); change its pins or the policy\n"
    )
    assert host.audit()[-1]["outcome"] == "refused"


@pytest.mark.parametrize("operation", ["reconnect", "attach", "stopped", "release"])
@pytest.mark.parametrize("data", [*BROKEN_XML, domain_xml().encode()])
def test_a_running_guest_is_never_endangered(host: Host, operation: str, data: bytes) -> None:
    """libvirt kills the guest for any other status of `reconnect`."""
    host.set_policy(REFUSE.replace('["vcpu:0"]', IMPOSSIBLE))
    answer = host.call(operation, data)
    assert (answer.status, answer.output, answer.error) == (0, "", "")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the hook whose Python is broken in the way that the parameter names."""
    library = tmp_path / "broken lib" / "emupin"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("def broken(:\n")
    old, new = {
        "missing interpreter": ("python=/usr/bin/python3", "python=/usr/bin/python3.nowhere"),
        "killed": ("python=/usr/bin/python3", f"python={script(tmp_path / 'killed', 'echo half; kill -KILL $$')}"),
        "status 1": ("python=/usr/bin/python3", "python=/bin/false"),
        "status 127": ("python=/usr/bin/python3", f"python={script(tmp_path / 'lost', 'exit 127')}"),
        "missing package": ("lib=", "lib=/nowhere"),
        "syntax error": ("lib=", f"lib='{library.parent}'"),
    }[request.param]
    return changed_hook(tmp_path, old, new)


WAYS = ["missing interpreter", "missing package", "killed", "status 1", "status 127", "syntax error"]


@pytest.mark.parametrize("broken", WAYS, indirect=True)
@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore", "started", "reconnect", "attach", "release"])
def test_a_broken_python_never_stops_a_guest(host: Host, broken: Path, operation: str) -> None:
    host.hook = broken
    answer = host.call(operation, domain_xml())
    assert answer.status == 0
    if operation in ("migrate", "restore"):
        assert answer.output == "", "half a document is worse than none"


def test_the_hook_works_with_the_c_locale_and_strange_names(host: Host) -> None:
    host.set_policy(POLICY.replace("nfv-*", "*"))
    for name in ("nfv-gäst ✓", "--help", "-c", "a 'b' \"c\" $(d) `e`;", "*", "%s%n", "x" * 200):
        xml = domain_xml(name.replace("&", "&amp;").replace("<", "&lt;"))
        answer = host.call("migrate", xml, name)
        assert (answer.status, answer.output) == (0, domain_xml(name, emulatorpin="2")), name
        assert host.audit()[-1]["name"] == name


def test_a_name_that_is_not_utf_8(host: Host) -> None:
    host.set_policy(POLICY.replace("nfv-*", "*"))
    xml = b"<?xml version='1.0' encoding='iso-8859-1'?>\n" + domain_xml("nfv-\xe4").encode("latin-1")
    answer = host.call("migrate", xml, os.fsdecode(b"nfv-\xe4"))
    assert answer.status == 0
    assert "<emulatorpin cpuset='2'/>" in answer.output
    assert host.audit()[-1]["name"] == "nfv-ä"


def test_fifteen_mebibytes_of_metadata(host: Host) -> None:
    blob = f"  <metadata><m:blob xmlns:m='urn:m'>{'x' * (15 * 2**20)}</m:blob></metadata>\n"
    answer = host.call("migrate", domain_xml(extra=blob))
    assert answer.output == domain_xml(extra=blob, emulatorpin="2")


def test_more_than_sixteen_mebibytes_are_refused_as_trouble(host: Host) -> None:
    answer = host.call("migrate", domain_xml(extra=f"<!-- {'x' * (16 * 2**20)} -->"))
    assert (answer.status, answer.output) == (0, "")
    assert "larger than 16 MiB" in str(host.audit()[-1]["reason"])


def test_no_secret_reaches_the_audit_trail(host: Host) -> None:
    host.call("migrate", domain_xml())
    host.call("migrate", domain_xml().replace("\n", " "))
    host.call("migrate", domain_xml(emulatorpin=None).replace("\n", " "))
    assert "hunter2" not in (host.root / "var/log/emupin/audit.jsonl").read_text()
    assert len(host.audit()) == 3


def test_the_audit_trail_is_private_and_whole_lines(host: Host) -> None:
    trail = host.write("var/log/emupin/audit.jsonl", '{"time": "torn by a power c', 0o600)
    host.call("migrate", domain_xml())
    lines = trail.read_text().splitlines()
    assert lines[0] == '{"time": "torn by a power c'
    assert '"op": "mend"' in lines[1]
    assert '"op": "migrate"' in lines[2]
    assert trail.stat().st_mode & 0o777 == 0o600


def test_a_trail_that_cannot_be_written_does_not_cost_the_guest_its_cpus(host: Host) -> None:
    (host.root / "var/log/emupin/audit.jsonl").mkdir(parents=True)
    assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="2")
    host.set_policy(REFUSE)
    answer = host.call("migrate", domain_xml())
    assert (answer.status, answer.output) == (1, "")
    assert "audit.jsonl: cannot be written: Is a directory; free some space" in answer.error


@pytest.mark.parametrize("path", ["etc/emupin/policy.yaml", "etc/emupin"])
def test_a_policy_that_others_can_write_is_not_used(host: Host, path: str) -> None:
    (host.root / path).chmod(0o777)
    answer = host.call("migrate", domain_xml())
    assert (answer.status, answer.output) == (0, "")


def test_a_policy_that_breaks_leaves_the_last_good_one_in_force(host: Host) -> None:
    host.call("migrate", domain_xml())
    host.set_policy("version: 1\nrules: [\n")
    assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="2")
    warning = str(host.audit()[-1]["warnings"])
    assert "policy.yaml:" in warning
    assert "(the last good policy stays in force)" in warning


def test_a_policy_that_its_parser_stumbles_over_leaves_the_last_good_one_in_force(host: Host) -> None:
    """It says `refuse`: that holds, too."""
    host.set_policy(REFUSE)
    host.call("migrate", domain_xml())
    host.set_policy(REFUSE.replace("name: nfv", 'name: "\\U00110000"'))
    assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="2")
    assert "policy.yaml:" in str(host.audit()[-1]["warnings"])
    assert host.call("migrate", "<domain>").status == 1


def test_the_last_good_policy_is_the_one_that_was_in_force_last(host: Host) -> None:
    host.call("migrate", domain_xml())
    host.set_policy(POLICY.replace("vcpu:0", "cpus:9"))
    host.call("migrate", domain_xml())
    host.set_policy(POLICY)
    host.call("migrate", domain_xml())
    host.set_policy("version: 2\n")
    assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="2")


def test_a_policy_whose_copy_was_removed_is_kept_again(host: Host) -> None:
    host.call("migrate", domain_xml())
    (kept,) = (host.root / "var/lib/emupin/policies").iterdir()
    kept.unlink()
    host.call("migrate", domain_xml())
    assert kept.read_text() == POLICY


def test_a_changed_policy_counts_at_once(host: Host) -> None:
    host.call("migrate", domain_xml())
    host.set_policy(POLICY.replace("vcpu:0", "cpus:9"))
    assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="9")


def test_a_compiled_policy_that_is_torn_is_compiled_anew(host: Host) -> None:
    host.call("migrate", domain_xml())
    (compiled,) = (host.root / "run/emupin").glob("policy-*")
    for data in (b"", b"\0", compiled.read_bytes()[:20], b"junk" * 10):
        compiled.write_bytes(data)
        assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="2")


def test_a_hook_that_hangs_ends_by_itself(host: Host) -> None:
    """stdin that never ends stands for whatever may hang; the limit is shortened from nine seconds here."""
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT / 'src')!r}); import emupin.hook as hook; "
        "hook.SECONDS = 0.3; hook.main()"
    )
    for policy, status in ((POLICY, 0), (REFUSE, 3)):
        host.set_policy(policy)
        read, write = os.pipe()
        began = time.monotonic()
        done = subprocess.run(
            [python(), "-I", "-S", "-c", code, "0", "nfv-1", "prepare"],
            stdin=read, capture_output=True, text=True, check=False, env={"EMUPIN_ROOT": str(host.root)},
        )  # fmt: skip
        os.close(read)
        os.close(write)
        assert done.returncode == status
        assert time.monotonic() - began < 3
        assert "took more than 0.3 seconds" in str(host.audit()[-1]["reason"])


LARGE = domain_xml(extra=f"<metadata><a>{'x' * 150_000}</a></metadata>\n")
"""More than fits into a pipe."""


def begin_within(seconds: float, host: Host, operation: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The hook's Python with another limit."""
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT / 'src')!r}); from emupin.bundle import loader; "
        f"loader.use({operation!r}); import emupin.hook as hook; hook.SECONDS = {seconds}; hook.main()"
    )
    return subprocess.Popen(
        [python(), "-I", "-S", "-c", code, "0", "nfv-1", operation],
        stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, text=True, env={"EMUPIN_ROOT": str(host.root)},
    )  # fmt: skip


def test_an_answer_that_is_being_printed_is_not_broken_off(host: Host) -> None:
    """The shell, or libvirt, may be slow to read it: half a document would be what libvirt starts."""
    host.call("migrate", LARGE)
    call = begin_within(1.0, host, "migrate")
    assert call.stdin
    call.stdin.write(LARGE)
    call.stdin.close()
    time.sleep(2)
    assert call.stdout
    assert call.stdout.read() == LARGE.replace("'2-5'/>", "'2'/>")
    assert call.wait() == 0
    assert host.audit()[-1]["outcome"] == "rewritten"


@pytest.mark.parametrize(("policy", "status"), [(POLICY, 4), (REFUSE, 3)])
def test_an_answer_that_could_not_be_printed_to_its_end_is_none(host: Host, policy: str, status: int) -> None:
    host.set_policy(policy)
    reader, writer = os.pipe()
    call = begin_within(9.0, host, "migrate", writer)
    os.close(writer)
    os.close(reader)
    call.communicate(domain_xml())
    assert call.returncode == status
    assert "stdout: cannot be written: Broken pipe" in str(host.audit()[-1]["reason"])


@pytest.mark.parametrize(("seconds", "kept"), [(9.0, True), (6.5, False)])
def test_modules_are_kept_only_where_there_is_time_for_it(host: Host, seconds: float, kept: bool) -> None:
    call = begin_within(seconds, host, "prepare")
    call.communicate(domain_xml())
    assert call.returncode == 0
    assert (host.root / "run/emupin/modules-prepare").exists() == kept


def test_a_policy_that_is_a_link_to_nowhere_leaves_the_last_good_one_in_force(host: Host) -> None:
    host.call("migrate", domain_xml())
    policy = host.root / "etc/emupin/policy.yaml"
    policy.unlink()
    policy.symlink_to("/no/such")
    assert host.call("migrate", domain_xml()).output == domain_xml(emulatorpin="2")
    assert "the last good policy stays in force" in str(host.audit()[-1]["warnings"])


def test_a_cache_that_cannot_be_written_costs_no_guest_its_start(host: Host) -> None:
    host.set_policy(REFUSE)
    other = f"<domain type='kvm'><name>other</name><uuid>{UUID[::-1]}</uuid><vcpu cpuset='9'>1</vcpu></domain>"
    host.write("run/libvirt/qemu/other.xml", f"<domstatus pid='0'>{other}</domstatus>")
    (host.root / "run/emupin/guests").mkdir(parents=True)
    assert host.call("prepare", domain_xml()).status == 0
    assert host.audit()[-1]["outcome"] == "decided"


def test_a_new_policy_under_a_pretended_python3_minimal(host: Host) -> None:
    """It has neither json nor difflib, which only reading a policy needs: what was compiled before stays in force."""
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT / 'src')!r}); sys.modules.update(json=None, difflib=None)\n"
        "import emupin.hook as hook; sys.exit(hook.run(hook.Call(*sys.argv[1:4])))"
    )
    host.call("migrate", domain_xml())
    host.set_policy(POLICY.replace("vcpu:0", "cpus:9"))
    done = subprocess.run(
        [python(), "-I", "-S", "-c", code, "0", "nfv-1", "migrate"],
        input=domain_xml(), capture_output=True, text=True, check=False, env={"EMUPIN_ROOT": str(host.root)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, domain_xml(emulatorpin="2")), done.stderr
    warning = str(host.audit()[-1]["warnings"])
    assert "which is not installed" in warning
    assert "install python3, not python3-minimal alone" in warning


def test_the_hook_imports_only_what_is_cheap(host: Host) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT / 'src')!r}); import emupin.hook as hook\n"
        "status = hook.run(hook.Call(*sys.argv[1:4]))\n"
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr); sys.exit(status)"
    )
    host.call("prepare", domain_xml())
    done = subprocess.run(
        [python(), "-I", "-S", "-c", code, "0", "nfv-1", "prepare"],
        input=domain_xml(), capture_output=True, text=True, check=False, env={"EMUPIN_ROOT": str(host.root)},
    )  # fmt: skip
    loaded = set(done.stderr.split())
    assert done.returncode == 0
    assert "emupin.engine.plan" in loaded
    assert not loaded & {
        "os",
        "re",
        "json",
        "enum",
        "typing",
        "dataclasses",
        "collections",
        "hashlib",
        "site",
        "yaml",
        "lxml",
    }


# -- a pin that libvirt cannot start the guest with -------------------------------------------------------------------

OFFLINE = domain_xml(emulatorpin="99")
STORED = "etc/libvirt/qemu/nfv-1.xml"


@pytest.mark.parametrize("operation", ["migrate", "restore"])
def test_an_impossible_pin_that_comes_in_is_taken_out_where_no_placement_passes(host: Host, operation: str) -> None:
    host.set_policy(POLICY.replace('["vcpu:0"]', IMPOSSIBLE))
    answer = host.call(operation, OFFLINE)
    assert (answer.status, answer.error) == (0, "")
    assert answer.output == domain_xml(emulatorpin=None)
    (entry,) = host.audit()
    assert (entry["outcome"], entry["diff"]) == ("rewritten", ["-    <emulatorpin cpuset='99'/>"])
    assert host.call(operation, domain_xml()).output == "", "one that libvirt can start with stays"


def test_an_impossible_pin_that_comes_in_is_replaced_where_one_passes(host: Host) -> None:
    assert host.call("migrate", OFFLINE).output == domain_xml(emulatorpin="2")


@pytest.mark.parametrize("policy", [POLICY.replace('"nfv-*"', '"web-*"'), POLICY.replace('["vcpu:0"]', "keep")])
def test_an_impossible_pin_of_a_guest_that_is_not_ours_is_left_alone(host: Host, policy: str) -> None:
    host.set_policy(policy)
    assert host.call("migrate", OFFLINE).output == ""
    assert host.call("prepare", OFFLINE).status == 0
    assert not (host.root / "run/emupin/impossible").exists()


def test_a_definition_that_libvirt_cannot_start_is_named_and_marked(host: Host) -> None:
    host.write(STORED, OFFLINE)
    assert host.call("prepare", OFFLINE).status == 0
    (entry,) = host.audit()
    assert entry["warnings"] == [
        "libvirt cannot start the guest with the <emulatorpin> of its definition: CPU 99 is not online; "
        "the definition is corrected when this start has failed: start the guest again then"
    ]
    assert postponed.take(str(host.root), UUID), "what `release` does then: see tests/real"
    assert not postponed.take(str(host.root), UUID)


def test_a_definition_that_libvirt_cannot_start_is_the_error_under_refuse(host: Host) -> None:
    host.set_policy(REFUSE)
    host.write(STORED, OFFLINE)
    answer = host.call("prepare", OFFLINE)
    assert answer.status == 1
    assert "libvirt cannot start the guest with the <emulatorpin> of its definition: CPU 99 is not" in answer.error
    assert answer.error.count("\n") == 1


def test_where_nothing_is_persisted_the_cure_is_a_command(host: Host) -> None:
    host.set_policy(REFUSE.replace("refuse}", "refuse, persist: false}"))
    host.write(STORED, OFFLINE)
    answer = host.call("prepare", OFFLINE)
    assert f"`virsh emulatorpin {UUID} 0-15 --config` changes it" in answer.error
    assert not (host.root / "run/emupin/impossible").exists()


def test_a_refusal_that_nobody_reads_is_no_mistake_of_ours(host: Host) -> None:
    host.set_policy(REFUSE)
    reader, stderr = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [HOOK, "nfv-1", "prepare", "begin", "-"],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "EMUPIN_ROOT": str(host.root)},
        input=b"<domain", stdout=subprocess.PIPE, stderr=stderr, check=False,
    )  # fmt: skip
    os.close(stderr)
    assert done.returncode == 1
    (entry,) = host.audit()
    assert "a bug" not in str(entry["reason"])


def test_an_ordinary_users_own_libvirt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls the same hook (qemu:///session), and nothing is there to read its policy with, or to claim CPUs."""
    monkeypatch.delenv("EMUPIN_ROOT", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(store, "find", lambda _root: pytest.fail("it looks for a policy"))
    assert [hook.run(hook.Call("0", "desktop", each)) for each in ("prepare", "started", "release")] == [0, 0, 0]


def test_a_pin_of_an_iothread_that_never_followed_is_for_its_owner_to_change(host: Host) -> None:
    pinned = domain_xml().replace("</vcpu>", "</vcpu><iothreads>1</iothreads>")
    pinned = pinned.replace("</cputune>", "<iothreadpin iothread='1' cpuset='99'/></cputune>")
    host.write(STORED, pinned)
    assert host.call("prepare", pinned).status == 0
    (entry,) = host.audit()
    assert entry["warnings"] == [
        "libvirt cannot start the guest with the <iothreadpin> of iothread1 of its definition: CPU 99 is not online; "
        f"`virsh iothreadpin {UUID} 1 0-15 --config` changes it"
    ]
    assert not (host.root / "run/emupin/impossible").exists()


def test_a_guest_without_a_definition_has_its_xml_from_somewhere(host: Host) -> None:
    host.set_policy(REFUSE)
    assert "correct it where the guest's XML comes from" in host.call("prepare", OFFLINE).error


def test_iothreads_that_followed_an_impossible_pin_lose_theirs_too(host: Host) -> None:
    host.set_policy(
        POLICY.replace('["vcpu:0"]', IMPOSSIBLE).replace("- name: nfv", "- name: nfv\n    iothreads: follow")
    )
    pins = "<iothreadpin iothread='1' cpuset='99'/><iothreadpin iothread='2' cpuset='6'/>"
    with_iothreads = OFFLINE.replace("cpuset='99'/>", f"cpuset='99'/>{pins}").replace(
        "<cputune>", "<iothreads>2</iothreads><cputune>"
    )
    output = host.call("migrate", with_iothreads).output
    assert "cpuset='99'" not in output
    assert "<iothreadpin iothread='2' cpuset='6'/>" in output


@pytest.mark.parametrize("operation", ["prepare", "migrate"])
@pytest.mark.parametrize("on_failure", ["start", "refuse"])
def test_a_call_that_is_killed_while_it_keeps_its_modules(
    host: Host, tmp_path: Path, operation: str, on_failure: str
) -> None:
    """Its work is done: no guest is stopped for it, but where it is not known whether libvirt has the whole XML."""
    host.set_policy(REFUSE if on_failure == "refuse" else POLICY)
    host.hook = changed_hook(
        tmp_path, "from emupin.hook import main", "import emupin.hook as hook, os\nfrom emupin.hook import main\n"
        "hook.loader.keep = lambda found: os.kill(os.getpid(), 9)",
    )  # fmt: skip
    answer = host.call(operation, domain_xml())
    assert answer.status == (1 if (on_failure, operation) == ("refuse", "migrate") else 0)
    assert (answer.output == "") == (operation == "migrate")
