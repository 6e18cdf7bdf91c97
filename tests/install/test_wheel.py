"""What pip makes of the project: a wheel with the command line, and a source archive with all there is."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_linters import need

from emupin import __version__
from emupin.base.build import build

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files alone: setuptools leaves folders of its own beside them."""
    folder = tmp_path_factory.mktemp("source") / "emupin"
    folder.mkdir()
    listed = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in done.stdout.split(b"\0") if name and os.path.exists(os.path.join(bytes(CHECKOUT), name))]
    subprocess.run(["cp", "--parents", "-t", folder, *names], cwd=CHECKOUT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment of its own, as `pip install .` and pipx make one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    return folder / "bin/emupin"


def run(command: Path, *words: str | Path, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "EMUPIN_ROOT": str(root)}
    return subprocess.run([command, *words], env=environment, cwd=root, capture_output=True, text=True, check=False)


def test_the_wheel_has_every_file_of_the_library_and_says_its_version(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith("/METADATA"))
        facts = email.message_from_bytes(archive.read(metadata))
    library = CHECKOUT / "src"
    modules = {str(path.relative_to(library)) for path in library.rglob("*") if path.is_file()}
    assert {name for name in modules if "__pycache__" not in name and ".egg-info" not in name} <= names
    assert facts["Version"] == __version__
    assert facts["Requires-Python"] == ">=3.9"
    assert "PyYAML" in (facts.get_all("Requires-Dist") or [])


def test_an_installed_command_names_the_same_build_as_the_checkout(command: Path, tmp_path: Path) -> None:
    done = run(command, "--version", root=tmp_path)
    assert done.stdout == f"emupin {__version__} (build {build()})\n"


def test_a_laptop_tests_a_policy_with_it(command: Path, tmp_path: Path) -> None:
    words = ("policy", "test", "--host", "none", "--policy", CHECKOUT / "examples/policy.yaml")
    done = run(command, *words, CHECKOUT / "fixtures/xml/demo.xml", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nfv" in done.stdout


def test_its_doctor_does_not_name_an_install_sh_that_is_not_there(command: Path, tmp_path: Path) -> None:
    done = run(command, "doctor", root=tmp_path)
    assert "the hook is not installed" in done.stdout
    assert "install the package emupin, or run install.sh of its source" in done.stdout
    assert " run install.sh\n" not in done.stdout


def test_pipx_runs_it_without_installing_anything(wheel: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "EMUPIN_ROOT": str(tmp_path)}
    done = subprocess.run(
        [need("pipx"), "run", "--quiet", "--spec", wheel, "emupin", "--version"],
        env={**os.environ, **places}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"emupin {__version__} (build {build()})\n", done.stderr


def test_the_source_archive_has_every_file_of_the_project(source: Path, tmp_path: Path) -> None:
    made = ("build/", "src/emupin.egg-info/")
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    wanted = {path for path in files if not path.startswith(made)}
    make = "from setuptools import setup; setup()"
    subprocess.run(
        [sys.executable, "-c", make, "--quiet", "sdist", "--dist-dir", tmp_path], cwd=source, check=True,
        capture_output=True,
    )  # fmt: skip
    archive = next(tmp_path.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        tar.extractall(tmp_path)
    assert wanted - names == set()
    unpacked = tmp_path / archive.name[: -len(".tar.gz")]
    done = subprocess.run([unpacked / "install.sh", "--demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
