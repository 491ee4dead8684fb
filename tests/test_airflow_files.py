"""The DAG files and the plugin, as the package ships them."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import __version__, airflow_files
from sasrec_tasks.errors import BadSettings

ROOT = Path(__file__).parents[1]
FILES = {
    f"{folder}/{file.name}": file.read_bytes()
    for folder in airflow_files.FOLDERS
    for file in (ROOT / folder).glob("*.py")
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_files_are_those_of_the_repository(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("airflow-files", "--to", str(tmp_path))
    assert done.status == 0, done.err
    assert sorted(done.out.split()) == sorted(str(tmp_path / name) for name in FILES)
    assert files_in(tmp_path) == FILES
    assert "dags/sasrec_nightly.py" in FILES
    again = command("airflow-files", "--to", str(tmp_path))
    assert (again.status, again.out) == (0, "")


def test_what_was_changed_by_hand_stays_unless_it_is_to_be_replaced(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    airflow_files.write(tmp_path)
    changed, missing = tmp_path / "dags" / "sasrec_nightly.py", tmp_path / "dags" / "sasrec_rollback.py"
    changed.write_text("mine")
    missing.unlink()
    checked = command("airflow-files", "--to", str(tmp_path), "--check")
    assert (checked.status, checked.out) == (1, f"missing: {missing}\ndiffers: {changed}\n")
    refused = command("airflow-files", "--to", str(tmp_path))
    assert refused.status == 2
    assert f"{changed}: there already, with other content: --force" in refused.err
    assert changed.read_text() == "mine"
    assert not missing.exists()
    assert command("airflow-files", "--to", str(tmp_path), "--force").status == 0
    assert files_in(tmp_path) == FILES
    assert command("airflow-files", "--to", str(tmp_path), "--check").status == 0


@pytest.mark.parametrize("to", ["", " "])
def test_an_unset_variable_is_not_the_current_folder(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--check",), ("--force",)):
        refused = command("airflow-files", "--to", to, *more)
        assert refused.status == 2
        assert "is empty" in refused.err
    assert files_in(tmp_path) == {}
    assert command("airflow-files", "--to", ".").status == 0
    assert files_in(tmp_path) == FILES


@pytest.mark.parametrize("file", FILES)
def test_each_file_holds_its_version_against_the_package_s(file: str) -> None:
    assert re.findall(r'made_for\("(.*)"\)', FILES[file].decode()) == [__version__]


@pytest.mark.parametrize("file", [name for name in FILES if name.startswith("dags/")])
def test_an_older_airflow_is_told_before_it_is_asked_for_what_it_does_not_have(
    file: str, tmp_path: Path
) -> None:
    old = tmp_path / "apache_airflow_core-3.2.2.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-airflow-core\nVersion: 3.2.2\n")
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1])\n"
        "try: runpy.run_path(sys.argv[2])\n"
        "except ValueError as error: print(error, 'airflow.sdk' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, ROOT / file], capture_output=True, text=True, check=True
    )
    needed = f"Airflow 3.2.2 is installed, these files need Airflow {airflow_files.AIRFLOW}: upgrade Airflow"
    assert done.stdout.strip() == f"{needed} False"


def test_a_file_of_another_version_says_so() -> None:
    airflow_files.made_for(__version__)
    with pytest.raises(
        BadSettings, match=rf"of sasrec-tasks 0\.0\.1, installed is {__version__}: .*airflow-files"
    ):
        airflow_files.made_for("0.0.1")


def test_the_wheel_has_them_and_writes_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    built = subprocess.run(
        [*build, f"--wheel-dir={tmp_path}", str(ROOT)], capture_output=True, text=True, check=False
    )
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip(f"pip reaches no index for hatchling: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    written = tmp_path / "written"
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); from sasrec_tasks import airflow_files; "
        "airflow_files.write(pathlib.Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-I", "-c", code, installed, written], check=True)
    assert files_in(written) == FILES
