"""The oldest Airflow that the README names runs the DAG; the newest is that of constraints.txt, in all other tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from airflow_processes import ROOT, airflow_at
from no_skips import NOTHING_TO_DO
from packaging.requirements import Requirement

from sasrec_tasks.airflow_files import AIRFLOW
from sasrec_tasks.generate import generate
from sasrec_tasks.tables import Recommendations

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
(CLAIM,) = (Requirement(each).specifier for each in PROJECT["optional-dependencies"]["airflow"])
(OLDEST,) = (f"{each.version}.0" for each in CLAIM if each.operator == ">=")
"""The first patch of the oldest minor version that the package takes."""

OWN = [Requirement(each) for each in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["train"]]


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


(NEWEST,) = (next(iter(each.specifier)).version for each in PINNED if each.name == "apache-airflow")


def test_the_readme_names_the_version_that_the_package_takes_and_that_is_tested() -> None:
    named = re.findall(r"next to Airflow (3\.\d+):", README)
    assert named == [AIRFLOW] == [".".join(OLDEST.split(".")[:2])]
    assert CLAIM.contains(OLDEST)
    assert CLAIM.contains(NEWEST)
    following = (minor(NEWEST)[0], minor(NEWEST)[1] + 1)
    assert not CLAIM.contains(".".join(map(str, following)))  # nobody has tried it


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the oldest Airflow and the package, of what it needs the pinned versions."""
    folder = tmp_path_factory.mktemp("oldest")
    own = {each.name for each in OWN}
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(str(each) for each in PINNED if each.name in own))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    asked = [f"apache-airflow=={OLDEST}", f"{ROOT}[train]", f"--constraint={constraints}"]
    more = os.environ.get("PIP_ARGS", "").split()
    done = subprocess.run(
        [folder / "venv" / "bin" / "pip", "install", "--quiet", "--no-compile", *more, *asked],
        capture_output=True,
        text=True,
        check=False,
    )
    if f"No matching distribution found for apache-airflow=={OLDEST}" in done.stderr:
        pytest.skip(f"pip reaches no index with Airflow {OLDEST}")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "venv" / "bin"


@pytest.mark.stack
@pytest.mark.skipif(
    OLDEST == NEWEST,
    reason=f"{NOTHING_TO_DO}the oldest is that of constraints.txt, on which all other tests run",
)
def test_the_oldest_airflow_runs_the_dag(programs: Path, tmp_path: Path) -> None:
    generate(tmp_path / "interactions.parquet", users=300, items=2000, events=9000, seed=1)
    environment = {
        **airflow_at(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "PYTHONPATH": "",
        "SASREC_SOURCE": str(tmp_path / "interactions.parquet"),
        "SASREC_STORE": str(tmp_path / "runs"),
        "SASREC_TABLE": str(tmp_path / "recommendations"),
    }

    def airflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(programs / "airflow"), *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    def night(conf: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return airflow("dags", "test", "sasrec_nightly", "--conf", json.dumps(conf))

    assert re.search(rf"^{re.escape(OLDEST)}$", airflow("version").stdout, re.MULTILINE)
    assert airflow("db", "migrate").returncode == 0
    errors = airflow("dags", "list-import-errors")
    assert errors.returncode == 0, errors.stdout

    done = night({"train.epochs": 2, "gate.force_publish": True})
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    table = Recommendations(str(tmp_path / "recommendations"))
    assert table.users() == 300

    refused = night({"epochs": 3})  # at once, without the retries that would take minutes
    assert refused.returncode != 0
    assert "epochs: no such setting, did you mean train.epochs?" in refused.stdout + refused.stderr
    assert Recommendations(str(tmp_path / "recommendations")).run_id == table.run_id
