"""install.sh, run for real into throw-away roots."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import UUID, domain_xml
from roots import run, steps

from emupin import __version__
from emupin.base.build import build
from emupin.grammar.policyfile import compile_policy

CHECKOUT = Path(__file__).parents[2]
MARKER = "# emupin: places the emulator threads of libvirt QEMU guests"
FOREIGN = "#!/bin/sh\nexit 0\n"
OURS_EDITED = f"#!/bin/sh\n{MARKER}\necho edited\n"

SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]


def install(
    root: Path, *arguments: str, shell: list[str] | None = None, libvirt: str = "9.0.0", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(root), "LIBVIRT_VERSION": libvirt}
    command = [*(shell or ["sh"]), str(CHECKOUT / "install.sh"), *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def installed(root: Path, *arguments: str, **options: str) -> list[str]:
    """The lines of a run that has to succeed."""
    done = install(root, *arguments, **options)  # type: ignore[arg-type]
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def words(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in lines}


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a root: mode, inode, content."""
    found = {}
    for path in sorted(root.rglob("*")):
        fact = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(fact.st_mode) else b""
        found[str(path.relative_to(root))] = (fact.st_mode, fact.st_ino, content)
    return found


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    return {name: (mode, content) for name, (mode, _, content) in snapshot(root).items()}


def place(root: Path, name: str, text: str, mode: int = 0o755) -> Path:
    path = root / "etc/libvirt/hooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine") / "node"
    installed(root)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A root where emupin is installed."""
    return Path(shutil.copytree(pristine, tmp_path / "node", symlinks=True))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def hook(root: Path) -> Path:
    return root / "etc/libvirt/hooks/qemu"


def drop_in(root: Path) -> Path:
    return root / "etc/libvirt/hooks/qemu.d/50-emupin"


def package(root: Path) -> Path:
    return root / "usr/local/lib/emupin/emupin"


def listed() -> list[tuple[int, str, str]]:
    """Mode, source and target below / of each file that is copied as it is, with the prefix /usr/local."""
    lines = [line.split() for line in (CHECKOUT / "packaging/files").read_text().splitlines() if line[:1] == "0"]
    return [
        (int(mode, 8), source, target.lstrip("/") if target[:1] == "/" else f"usr/local/{target}")
        for mode, source, target in lines
    ]


def test_fresh_installation_has_every_file_with_its_mode(pristine: Path) -> None:
    modes = {name: stat.S_IMODE(mode) for name, (mode, _, _) in snapshot(pristine).items()}
    assert modes["etc/libvirt/hooks/qemu"] == 0o755
    assert modes["usr/local/bin/emupin"] == 0o755
    assert modes["etc/emupin"] == 0o755
    assert modes["etc/emupin/policy.yaml.example"] == 0o644
    assert modes["etc/logrotate.d/emupin"] == 0o644
    assert modes["var/log/emupin"] == 0o700
    assert modes["var/lib/emupin"] == 0o700
    assert modes["usr/local/share/man/man8/emupin.8"] == 0o644
    assert modes["usr/local/share/emupin/hook"] == 0o755
    assert {target: modes[target] for _, _, target in listed()} == {target: mode for mode, _, target in listed()}
    sources = {str(path.relative_to(CHECKOUT / "src")) for path in (CHECKOUT / "src").rglob("*.py")}
    modules = {str(path.relative_to(package(pristine).parent)) for path in package(pristine).rglob("*.py")}
    assert modules == sources
    assert {modes[f"usr/local/lib/emupin/{name}"] for name in modules} == {0o644}


@pytest.mark.parametrize(
    ("prefix", "units", "rules"),
    [
        ("/usr", "usr/lib/systemd/system", "usr/lib/udev/rules.d"),
        ("/usr/local", "usr/local/lib/systemd/system", "usr/local/lib/udev/rules.d"),
        ("/opt/em&pin", "etc/systemd/system", "etc/udev/rules.d"),
    ],
)
def test_a_cpu_change_starts_what_brings_guests_in_line(tmp_path: Path, prefix: str, units: str, rules: str) -> None:
    install(tmp_path, "--prefix", prefix)
    service, rule = tmp_path / units / "emupin-drift.service", tmp_path / rules / "60-emupin.rules"
    assert f'\nExecStart="{prefix}/bin/emupin" apply --drift --yes\n' in service.read_text()
    assert (stat.S_IMODE(service.stat().st_mode), stat.S_IMODE(rule.stat().st_mode)) == (0o644, 0o644)
    assert rule.read_text().splitlines()[-1].startswith('ACTION=="online|offline", SUBSYSTEM=="cpu", ')
    assert "systemctl --no-block start emupin-drift.service" in rule.read_text()
    install(tmp_path, "--prefix", prefix, "--uninstall")
    assert not service.exists()
    assert not rule.exists()


def test_a_service_and_a_rule_that_are_masked_stay_so(tmp_path: Path) -> None:
    names = ("systemd/system/emupin-drift.service", "udev/rules.d/60-emupin.rules")
    masks = [tmp_path / "etc" / name for name in names]
    for mask in masks:
        mask.parent.mkdir(parents=True)
        mask.symlink_to("/dev/null")
    for arguments in ([], ["--check"], ["--uninstall"]):
        done = install(tmp_path, "--prefix", "/opt/emupin", *arguments)
        assert done.returncode == 0, done.stdout
        assert [os.readlink(mask) for mask in masks] == ["/dev/null"] * 2


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@needs_systemd
@pytest.mark.parametrize("prefix", ["", "/opt/our node", "/opt/%n"])
def test_systemd_takes_the_service_of_every_prefix(prefix: str, tmp_path: Path) -> None:
    prefix = f"{tmp_path}{prefix}"
    install(tmp_path, "--prefix", prefix)
    shutil.copytree(f"{tmp_path}{prefix}", prefix, dirs_exist_ok=True)
    unit = tmp_path / "etc/systemd/system/emupin-drift.service"
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert "emupin" not in done.stderr, done.stderr


@needs_systemd
@pytest.mark.parametrize(("name", "status"), [("policy.yaml", 0), ("policy.json", 0), ("policy.yaml.example", 1)])
def test_the_service_runs_where_there_is_a_policy(name: str, status: int, pristine: Path, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    text = (pristine / "usr/local/lib/systemd/system/emupin-drift.service").read_text()
    conditions = re.findall("^Condition.*", text.replace("/etc/emupin", str(tmp_path)), re.M)
    assert subprocess.run(["systemd-analyze", "condition", *conditions], check=False).returncode == status


def test_nothing_is_a_link_or_a_left_over(pristine: Path) -> None:
    assert [name for name, (mode, _, _) in snapshot(pristine).items() if stat.S_ISLNK(mode)] == []
    assert [name for name in snapshot(pristine) if "/.emupin" in name] == []
    assert not (pristine / "etc/emupin/policy.yaml").exists()
    assert not (pristine / "etc/libvirt/hooks/qemu.d").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="owners are root's only where root installs")
def test_everything_belongs_to_root(pristine: Path) -> None:
    assert {(path.stat().st_uid, path.stat().st_gid) for path in pristine.rglob("*")} == {(0, 0)}


def test_a_staging_has_no_byte_code_of_the_builders_python(pristine: Path) -> None:
    assert list(pristine.rglob("__pycache__")) == []


def test_hook_knows_its_library(pristine: Path) -> None:
    lines = hook(pristine).read_text().splitlines()
    assert lines[1] == MARKER
    assert [line for line in lines if line.startswith("lib=")] == ["lib='/usr/local/lib/emupin'"]


def test_command_runs_from_there(root: Path) -> None:
    done = subprocess.run([root / "usr/local/bin/emupin", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"emupin {__version__} (build {build()})\n"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_every_shell_installs_the_same_and_a_second_run_changes_nothing(
    shell: list[str], pristine: Path, tmp_path: Path
) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    folder = tmp_path / "a root with 'blanks' & more"
    first = install(folder, shell=shell, cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert words(first.stdout.splitlines()) == {"changed"}
    before = snapshot(folder)
    second = install(folder, shell=shell, cwd=tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert words(second.stdout.splitlines()) == {"ok"}
    assert snapshot(folder) == before
    assert contents(folder) == contents(pristine)


@pytest.mark.parametrize("mask", ["000", "077"])
def test_the_umask_does_not_matter(mask: str, pristine: Path, empty: Path) -> None:
    command = ["sh", "-c", 'umask "$1" && exec sh "$2"', "sh", mask, str(CHECKOUT / "install.sh")]
    subprocess.run(command, env={**os.environ, "DESTDIR": str(empty)}, capture_output=True, check=True)
    assert contents(empty) == contents(pristine)


def test_relative_destdir_and_any_folder(empty: Path) -> None:
    done = install(Path("node"), cwd=empty)
    assert done.returncode == 0, done.stderr
    assert hook(empty / "node").exists()


def test_check_tells_and_changes_nothing(empty: Path) -> None:
    done = install(empty, "--check")
    assert done.returncode == 1
    assert all(line.startswith("would change ") for line in done.stdout.splitlines())
    assert list(empty.iterdir()) == []


def test_check_is_content_after_an_installation(root: Path) -> None:
    before = snapshot(root)
    assert words(installed(root, "--check")) == {"ok"}
    assert snapshot(root) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: hook(root).chmod(0o644),
        lambda root: hook(root).unlink(),
        lambda root: (package(root) / "guest/splice.py").write_text("broken\n"),
        lambda root: (package(root) / "stale.py").write_text(""),
        lambda root: (package(root) / "guest/splice.py").chmod(0o666),
        lambda root: (root / "var/log/emupin").chmod(0o755),
        lambda root: (root / "etc/emupin/policy.yaml.example").write_text("version: 0\n"),
        lambda root: (root / "usr/local/bin/emupin").unlink(),
        lambda root: (root / "etc/logrotate.d/emupin").unlink(),
        lambda root: (root / "usr/local/share/man/man8/emupin.8").write_text("old\n"),
        lambda root: (root / "usr/local/share/emupin/place-hook").chmod(0o644),
    ],
    ids=[
        "mode",
        "no-hook",
        "module",
        "stale",
        "writable",
        "log",
        "example",
        "no-command",
        "no-logrotate",
        "manual",
        "no-place-hook",
    ],
)
def test_whatever_drifted_is_found_and_repaired(spoil: object, root: Path, pristine: Path) -> None:
    spoil(root)  # type: ignore[operator]
    assert install(root, "--check").returncode == 1
    lines = installed(root)
    assert sum(line.startswith("changed ") for line in lines) == 1
    assert contents(root) == contents(pristine)
    assert words(installed(root)) == {"ok"}


def test_upgrade_removes_modules_and_byte_code_that_are_gone(root: Path) -> None:
    (package(root) / "gone.py").write_text("")
    (package(root) / "__pycache__").mkdir()
    (package(root) / "__pycache__" / "gone.cpython-39.pyc").write_bytes(b"old")
    installed(root)
    assert list(package(root).rglob("gone*")) == []


def test_a_library_behind_a_link_is_replaced_not_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    package(root).rename(elsewhere)
    package(root).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    installed(root)
    assert not package(root).is_symlink()
    assert snapshot(elsewhere) == before


def test_the_folder_can_be_chosen(empty: Path) -> None:
    """What packages and configuration management want: the same place on every node."""
    assert f"changed {drop_in(empty)}" in installed(empty, "--hook", "qemu.d")
    assert not hook(empty).exists()
    assert words(installed(empty, "--hook", "qemu.d")) == words(installed(empty)) == {"ok"}


def test_choosing_the_folder_moves_the_hook_there(root: Path) -> None:
    lines = installed(root, "--hook=qemu.d")
    assert f"changed {drop_in(root)}" in lines
    assert f"removed {hook(root)}" in lines


def test_the_hook_can_be_put_in_place_later(empty: Path) -> None:
    foreign = place(empty, "qemu", FOREIGN)
    installed(empty, "--hook", "later")
    assert [path for path in (empty / "etc/libvirt").rglob("*") if path.is_file()] == [foreign]
    ready = empty / "usr/local/share/emupin"
    assert {"hook", "place-hook"} <= {path.name for path in ready.iterdir()}
    assert "lib='/usr/local/lib/emupin'" in (ready / "hook").read_text()


def test_foreign_hook_gets_company_in_the_folder(empty: Path) -> None:
    foreign = place(empty, "qemu", FOREIGN)
    assert f"changed {drop_in(empty)}" in installed(empty)
    assert foreign.read_text() == FOREIGN
    assert drop_in(empty).read_text().splitlines()[1] == MARKER
    assert list(drop_in(empty).parent.iterdir()) == [drop_in(empty)]
    assert words(installed(empty)) == {"ok"}


@pytest.mark.parametrize(
    ("version", "status"), [("6.5.0", 0), ("6.10.0", 0), ("10.0.0", 0), ("6.4.0", 1), ("6.0.0", 1)]
)
def test_the_folder_needs_libvirt_6_5(version: str, status: int, empty: Path) -> None:
    place(empty, "qemu", FOREIGN)
    done = install(empty, libvirt=version)
    assert done.returncode == status
    assert drop_in(empty).exists() == (status == 0)


def test_foreign_hook_and_old_libvirt_is_refused_with_a_way_out(empty: Path) -> None:
    foreign = place(empty, "qemu", FOREIGN)
    done = install(empty, libvirt="6.0.0")
    assert done.returncode == 1
    assert "belongs to somebody else, and libvirt 6.0.0 runs only that one file" in done.stderr
    assert "upgrade libvirt" in done.stderr
    assert [path for path in empty.rglob("*") if path.is_file()] == [foreign]
    assert install(empty, "--check", libvirt="6.0.0").returncode == 2


def test_unreadable_version_is_said(empty: Path) -> None:
    done = install(empty, libvirt="new")
    assert done.returncode == 1
    assert "cannot read libvirt's version: new" in done.stderr


def test_foreign_file_of_our_name_is_refused(empty: Path) -> None:
    place(empty, "qemu", FOREIGN)
    other = place(empty, "qemu.d/50-emupin", FOREIGN)
    done = install(empty)
    assert done.returncode == 1
    assert "is not emupin's" in done.stderr
    assert other.read_text() == FOREIGN


def test_edited_copy_of_ours_is_replaced(root: Path, pristine: Path) -> None:
    place(root, "qemu", OURS_EDITED)
    assert f"changed {hook(root)}" in installed(root)
    assert hook(root).read_text() == hook(pristine).read_text()


def test_ours_mixed_with_another_hook_is_left_alone(root: Path) -> None:
    mixed = place(root, "qemu", f"#!/bin/sh\necho mine\n{MARKER}\n")
    done = install(root)
    assert done.returncode == 1
    assert "mixed with something else" in done.stderr
    assert "echo mine" in mixed.read_text()


@pytest.mark.parametrize("name", ["50-emupin", "10-emupin"])
def test_a_place_in_the_folder_is_kept_and_the_other_copy_goes(name: str, root: Path) -> None:
    mine = place(root, f"qemu.d/{name}", OURS_EDITED)
    lines = installed(root)
    assert f"changed {mine}" in lines
    assert f"removed {hook(root)}" in lines
    assert not hook(root).exists()
    assert words(installed(root)) == {"ok"}


def test_second_copies_in_the_folder_go_but_foreign_and_sleeping_files_stay(root: Path) -> None:
    hook(root).unlink()
    place(root, "qemu.d/50-emupin", OURS_EDITED)
    place(root, "qemu.d/50-emupin~", OURS_EDITED)
    place(root, "qemu.d/.hidden", OURS_EDITED)
    sleeping = place(root, "qemu.d/sleeping", OURS_EDITED, mode=0o644)
    foreign = place(root, "qemu.d/90-other", FOREIGN)
    installed(root)
    assert sorted(drop_in(root).parent.iterdir()) == [drop_in(root), foreign, sleeping]


def test_old_libvirt_does_not_read_the_folder_so_the_hook_moves_out(root: Path) -> None:
    hook(root).unlink()
    place(root, "qemu.d/50-emupin", OURS_EDITED)
    installed(root, libvirt="6.0.0")
    assert hook(root).exists()
    assert not drop_in(root).exists()


def test_dangling_link_is_somebody_elses(empty: Path) -> None:
    hook(empty).parent.mkdir(parents=True)
    hook(empty).symlink_to("/nowhere/hook")
    installed(empty)
    assert os.readlink(hook(empty)) == "/nowhere/hook"
    assert drop_in(empty).exists()


def test_link_to_a_foreign_file_is_somebody_elses(empty: Path, tmp_path: Path) -> None:
    target = tmp_path / "vendor-hook"
    target.write_text(FOREIGN)
    hook(empty).parent.mkdir(parents=True)
    hook(empty).symlink_to(target)
    installed(empty)
    assert hook(empty).is_symlink()
    assert target.read_text() == FOREIGN
    assert drop_in(empty).exists()


def test_link_to_a_copy_of_ours_becomes_a_file(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text(OURS_EDITED)
    hook(root).unlink()
    hook(root).symlink_to(target)
    installed(root)
    assert not hook(root).is_symlink()
    assert target.read_text() == OURS_EDITED


def test_the_example_policy_is_valid_also_with_its_commented_rules() -> None:
    path = CHECKOUT / "examples/policy.yaml"
    text = path.read_text()
    assert [rule.name for rule in compile_policy(text.encode(), str(path)).rules] == ["nfv"]
    everything = re.sub(r"(?m)^# (?=host:|  \w+: .* # )", "", re.sub(r"(?m)^  # (?=- | {2,}\w)", "  ", text))
    names = [rule.name for rule in compile_policy(everything.encode(), str(path)).rules]
    assert names == ["nfv", "web", "isolated", "routers", "leave-alone"]


def test_policy_is_never_touched(root: Path) -> None:
    policy = root / "etc/emupin/policy.yaml"
    policy.write_text("version: 1\n")
    installed(root)
    installed(root, "--uninstall")
    assert policy.read_text() == "version: 1\n"


def test_uninstall_leaves_policy_audit_trail_and_foreign_files(root: Path) -> None:
    foreign = place(root, "qemu.d/90-other", FOREIGN)
    audit = root / "var/log/emupin/audit.jsonl"
    audit.write_text("{}\n")
    policy = root / "etc/emupin/policy.yaml"
    policy.write_text("version: 1\n")
    lines = installed(root, "--uninstall")
    assert {path for path in root.rglob("*") if path.is_file()} == {foreign, audit, policy}
    assert f"kept {audit.parent} (policy and audit trail are yours)" in lines
    again = installed(root, "--uninstall")
    assert again[0] == "ok nothing of emupin is installed below /usr/local"
    assert not [line for line in (*lines, *again) if "pins" in line]


def test_uninstall_leaves_the_hook_of_another_installation(root: Path) -> None:
    """A package's, on a node that also had a copy below /usr/local."""
    hook(root).unlink()
    installed(root, "--prefix=/usr", "--hook=qemu.d")
    lines = installed(root, "--uninstall")
    assert drop_in(root).exists()
    assert not package(root).exists()
    assert f"removed {drop_in(root)}" not in lines
    assert f"removed {drop_in(root)}" in installed(root, "--uninstall", "--prefix=/usr")


SHARED = ("etc/logrotate.d/emupin", "etc/emupin/policy.yaml.example", "run/emupin/claims", "var/log/emupin")


@pytest.mark.parametrize(
    ("staying", "leaving", "was_there"),
    [("/usr", "/usr/local", True), ("/opt/x", "/opt/y", True), ("/opt/x", "/opt/y", False)],
)
def test_what_all_copies_share_goes_with_the_last(empty: Path, staying: str, leaving: str, was_there: bool) -> None:
    if was_there:
        installed(empty, "--prefix", leaving)
    installed(empty, "--prefix", staying)
    claims = empty / "run/emupin/claims"
    claims.parent.mkdir(parents=True)
    claims.write_text("")
    lines = installed(empty, "--uninstall", "--prefix", leaving)
    assert [name for name in SHARED if not (empty / name).exists()] == []
    kept = f"kept what all copies share, recorded pins too: {hook(empty)} is another copy's, which stays"
    assert lines[-1] == kept
    assert (f"ok nothing of emupin is installed below {leaving}" in lines) is not was_there
    assert words(installed(empty, "--prefix", staying)) == {"ok"}
    installed(empty, "--uninstall", "--prefix", staying)
    assert [path for path in empty.rglob("*") if path.is_file()] == []


def test_a_copy_whose_hook_is_not_in_place_is_another_one_too(empty: Path) -> None:
    """A package's, say, while its hook is set aside."""
    installed(empty)
    installed(empty, "--prefix=/usr", "--hook=later")
    installed(empty, "--uninstall")
    assert not hook(empty).exists()
    assert (empty / "etc/logrotate.d/emupin").exists()


def test_uninstall_removes_a_hook_whose_library_is_gone(root: Path) -> None:
    place(root, "qemu", f"#!/bin/sh\n{MARKER}\nlib='/opt/gone'\n")
    assert f"removed {hook(root)}" in installed(root, "--uninstall")


def test_uninstall_leaves_no_claims(root: Path) -> None:
    claims = root / "run/emupin/claims"
    claims.parent.mkdir(parents=True)
    claims.write_text("")
    installed(root, "--uninstall")
    assert not claims.parent.exists()


def test_uninstall_leaves_a_foreign_hook_and_command(root: Path) -> None:
    foreign = place(root, "qemu", FOREIGN)
    command = root / "usr/local/bin/emupin"
    command.write_text("#!/bin/sh\n")
    installed(root, "--uninstall")
    assert foreign.exists()
    assert command.exists()


def test_uninstall_can_be_looked_at_first(root: Path) -> None:
    before = snapshot(root)
    done = install(root, "--uninstall", "--check")
    assert done.returncode == 1
    assert f"would change {hook(root)}" in done.stdout.splitlines()
    assert snapshot(root) == before


def test_prefix_is_where_library_and_command_go(empty: Path, tmp_path: Path) -> None:
    """Packaged into one folder, then unpacked where it belongs, as a package manager would do."""
    final = tmp_path / "opt it's & here"
    installed(empty, f"--prefix={final}/")
    shutil.move(str(empty / str(final).lstrip("/")), final)
    done = subprocess.run([final / "bin/emupin", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entry = run_hook(hook(empty), tmp_path / "node")
    assert '"name":"instance-0000002a"' in entry.replace(" ", "")


def run_hook(path: Path, node: Path) -> str:
    """Lets the installed hook decide about a guest on a small made-up node; the audit entry it leaves."""
    policy = node / "etc/emupin/policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"version": 1, "rules": [{"name": "all", "placement": "vcpu:0"}]}')
    policy.chmod(0o600)
    online = node / "sys/devices/system/cpu/online"
    online.parent.mkdir(parents=True)
    online.write_text("0-7\n")
    with (CHECKOUT / "fixtures/xml/demo.xml").open("rb") as xml:
        done = subprocess.run(
            [path, "instance-0000002a", "prepare", "begin", "-"],
            env={"PATH": os.defpath, "LC_ALL": "C", "EMUPIN_ROOT": str(node)},
            stdin=xml,
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'<emulatorpin cpuset="2"/>' in done.stdout
    return (node / "var/log/emupin/audit.jsonl").read_text()


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_demo_shows_a_diff_and_a_reason_and_cleans_up(shell: list[str], tmp_path: Path) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    command = [*shell, str(CHECKOUT / "install.sh"), "--demo"]
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '-    <emulatorpin cpuset="2-5"/>' in done.stdout
    assert '+    <emulatorpin cpuset="2"/>' in done.stdout
    assert "Why: " in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def public_checkout() -> Iterator[Path]:
    """A fresh checkout that every user may read, which pytest's own folders are not."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder)
        checkout.chmod(0o755)
        for name in ("hooks", "src", "fixtures", "packaging", "examples"):
            shutil.copytree(CHECKOUT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(CHECKOUT / "install.sh", checkout)
        yield checkout


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user="nobody", group="nogroup", extra_groups=[], env={}, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_demo_needs_no_root(public_checkout: Path) -> None:
    done = as_nobody(public_checkout / "install.sh", "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Why: " in done.stdout


def test_installing_needs_root(public_checkout: Path) -> None:
    done = as_nobody(public_checkout / "install.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert "only root can do that" in done.stderr
    assert "--demo" in done.stderr


def test_an_incomplete_checkout_is_said(public_checkout: Path) -> None:
    (public_checkout / "hooks/qemu").unlink()
    done = as_nobody(public_checkout / "install.sh", "--demo")
    assert done.returncode == 1
    assert "complete checkout" in done.stderr


NODE = """
install() { sh /tmp/given/install.sh "$@"; }
echo "== no libvirt"
install
echo "== libvirt appears"
daemon libvirtd
install
reloads
echo "== unchanged"
install
reloads
for spoil in 'rm -r guest/__pycache__' 'touch -d @1 hook.py'; do
    echo "== $spoil"
    (cd /usr/local/lib/emupin/emupin && eval "$spoil")
    install --check || echo "status $?"
    install
    install --check
done
echo "== another"
kill "$(cat /run/libvirtd.pid)"
sleep 60 &
echo $! >/run/libvirtd.pid
rm /etc/libvirt/hooks/qemu
install
kill $!
echo "== removal"
rm /tmp/ready
daemon libvirtd
mkdir -p /run/emupin
install --uninstall
reloads
ls -d /run/emupin || echo "no /run/emupin"
echo "== again"
install --uninstall
install --uninstall --undo
echo "== pins"
mkdir -p /etc/libvirt/qemu /var/lib/emupin
cat >/etc/libvirt/qemu/nfv-1.xml <<'TEXT'
DEFINITION
TEXT
PYTHONPATH=/tmp/given/src /usr/bin/python3 -B -c 'from emupin.node import former
former.remember("", "UUID", "persistent", {"emulator": "2-5"}, {"emulator": "2"}, "")'
install --uninstall --undo --check || echo "status $?"
rm -r /etc/libvirt/qemu /var/lib/emupin
echo "== metrics"
figures=/var/lib/prometheus/node-exporter/emupin.prom
mkdir -p "${figures%/*}"
install >/dev/null
systemctl enable emupin-metrics.path
touch "$figures"
install --uninstall --check || echo "status $?"
ls "$figures"
install --uninstall
ls "$figures" || echo "no figures"
ls /etc/systemd/system/multi-user.target.wants/emupin-metrics.path || echo "no link"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    script = NODE.replace("DEFINITION", domain_xml(emulatorpin="2")).replace("UUID", UUID)
    return steps(run(tmp_path_factory.mktemp("node"), CHECKOUT, script))


def test_a_running_libvirt_is_reloaded_when_the_hook_changed_and_only_then(node: dict[str, list[str]]) -> None:
    assert any("no running libvirt found" in line for line in node["no libvirt"])
    assert any("note: there is no policy yet" in line for line in node["no libvirt"])
    assert "changed reloaded libvirtd" in node["libvirt appears"]  # by the second run: the first could not
    assert node["libvirt appears"][-1] == "1"
    assert words(node["unchanged"][:-1]) <= {"ok", "note:", "copy", "warning:"}
    assert node["unchanged"][-1] == "0"
    assert any("no running libvirt found" in line for line in node["another"])


def test_removal_reloads_before_the_library_goes(node: dict[str, list[str]]) -> None:
    lines = node["removal"]
    removed = lines.index("removed /etc/libvirt/hooks/qemu")
    assert removed < lines.index("changed reloaded libvirtd") < lines.index("removed /usr/local/lib/emupin/emupin")
    assert "1" in lines  # reloads
    assert lines[-1] == "no /run/emupin"
    assert any("the pins recorded in libvirt's definitions" in line for line in lines)


def test_a_second_removal_finds_nothing_and_no_pins(node: dict[str, list[str]]) -> None:
    nothing = "ok nothing of emupin is installed below /usr/local"
    assert [line for line in node["again"] if "kept /" not in line] == [nothing, "nothing to take back", nothing]


def test_a_look_at_a_removal_tells_of_pins_whatever_is_installed(node: dict[str, list[str]]) -> None:
    would = "would change the pins recorded in libvirt's definitions (emupin apply --undo --all shows them)"
    assert [line for line in node["pins"] if "kept /" not in line] == [would, "status 1"]


def test_removal_ends_the_metrics(node: dict[str, list[str]]) -> None:
    figures = "/var/lib/prometheus/node-exporter/emupin.prom"
    lines = node["metrics"]
    looked = lines[: lines.index("status 1")]
    assert {"would change emupin-metrics.path", f"would change {figures}"} <= set(looked)
    assert lines[len(looked) + 1] == figures
    assert {"changed disabled emupin-metrics.path", f"removed {figures}", "no figures", "no link"} <= set(lines)


def test_byte_code_that_a_node_would_make_anew_is_found_and_repaired(node: dict[str, list[str]]) -> None:
    cases = [lines for name, lines in node.items() if name.startswith(("rm", "touch"))]
    assert len(cases) == 2
    for lines in cases:
        assert "would change /usr/local/lib/emupin/emupin" in lines
        assert "status 1" in lines
        assert "changed /usr/local/lib/emupin/emupin" in lines


@pytest.mark.parametrize(
    "arguments", [["--bogus"], ["--prefix"], ["--prefix", "relative"], ["--prefix=/a\nb"], ["--hook=etc"], ["--undo"]]
)
def test_misuse_has_status_2_and_a_hint(arguments: list[str], empty: Path) -> None:
    done = install(empty, *arguments)
    assert done.returncode == 2
    assert "--help" in done.stderr
    assert list(empty.iterdir()) == []


def test_help_needs_nothing(empty: Path) -> None:
    lines = installed(empty, "--help")
    assert lines[0].startswith("Usage: ")
    assert list(empty.iterdir()) == []


def test_an_interrupted_run_leaves_nothing_behind(empty: Path, tmp_path: Path) -> None:
    """Stopped while it compiles: no half library, no temporary file, and the next run completes."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "DESTDIR": str(empty), "TMPDIR": str(temporary)}
    with subprocess.Popen(["sh", CHECKOUT / "install.sh"], env=environment, stdout=subprocess.DEVNULL) as process:
        while not list(empty.glob("usr/local/lib/emupin/.emupin-*/emupin/*.py")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert [path for path in empty.rglob("*") if path.is_file()] == []
    assert list(temporary.iterdir()) == []
    installed(empty)


def test_the_same_python_is_meant() -> None:
    """The byte code is made by /usr/bin/python3, which the hook calls."""
    text = (CHECKOUT / "install.sh").read_text()
    assert "python=/usr/bin/python3\n" in text
    assert "python=/usr/bin/python3\n" in (CHECKOUT / "hooks/qemu").read_text()


def test_a_pretended_python3_minimal_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    script = """
        rm -r /usr/lib/python3*/json /usr/lib/python3*/difflib.py
        for argument in --demo --check --prefix=/usr/local; do
            if sh /tmp/given/install.sh $argument; then exit 1; fi
        done
        [ ! -e /usr/local/bin/emupin ]
    """
    said = run(tmp_path, CHECKOUT, script)
    assert len(re.findall("it is python3-minimal alone(?:: |\n  )install the package python3\n", said)) == 3, said
    assert "Traceback" not in said
