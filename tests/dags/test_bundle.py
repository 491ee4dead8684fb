"""The repository as a bundle from git, with the configuration that the documentation gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from airflow_processes import ROOT

from sasrec_tasks.tables import Recommendations

PROVIDER = "apache-airflow-providers-git"
# By its distribution: to import Airflow here would set up the logging of all other tests.
pytestmark = pytest.mark.skipif(not list(distributions(name=PROVIDER)), reason=f"needs {PROVIDER}")


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=ann", "-c", "user.email=ann@shop.example"]
    command = ["git", "-C", str(folder), *author, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with this one's DAGs."""
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=dags")
    return folder


def test_the_dag_runs_from_a_git_repository(airflow: Any, repository: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (bundles,) = re.findall(r"DAG_BUNDLE_CONFIG_LIST='(.*?)'", text, re.DOTALL)
    (tmp_path / "dags").mkdir()
    environment = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(tmp_path / "bundles"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": re.sub(r"https://[^\"]+", str(repository), bundles),
    }
    parsed = airflow.run("dags", "reserialize", **environment)
    assert parsed.returncode == 0, parsed.stderr
    found = airflow.query("SELECT bundle_name, bundle_version FROM dag WHERE dag_id = 'sasrec_nightly'")
    assert found == [("sasrec", git(repository, "rev-parse", "HEAD"))]

    conf = json.dumps({"train.epochs": 2, "gate.force_publish": True})
    done = airflow.run("dags", "test", "sasrec_nightly", "--conf", conf, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Recommendations(airflow.environment["SASREC_TABLE"]).users() == 300
    failed = airflow.run("dags", "test", "sasrec_nightly", "--conf", '{"epochs": 2}', **environment)
    assert "failed in ingest" in failed.stdout + failed.stderr  # of `alert`, which imports a file beside it
