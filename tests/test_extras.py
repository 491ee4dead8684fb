"""The package without extras reads the table; each extra adds what it says, and nothing else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks.extras import EXTRAS, needs
from sasrec_tasks.tables import open_tables

PROJECT = Path(__file__).parents[1]

WITHOUT_EXTRAS = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"airflow", *{sorted(EXTRAS)}}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""
"""As if no extra were installed."""


def python(code: str, *arguments: str, executable: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([executable, "-c", code, *arguments], capture_output=True, text=True)


def command_without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python(f"{WITHOUT_EXTRAS}\nfrom sasrec_tasks.cli import main\nmain()", *arguments)


def test_the_reader_needs_no_extra(finished: Any) -> None:
    code = (
        f"{WITHOUT_EXTRAS}\nfrom sasrec_tasks.tables import Recommendations\n"
        "found = Recommendations(sys.argv[1])\n"
        "print(found.version, found.users(), len(found.for_user('user 3')), len(found.changes(0)))"
    )
    done = python(code, finished.table)
    assert done.stdout.split() == ["0", "100", "10", "0"], done.stderr


def test_the_commands_on_the_table_need_no_extra(finished: Any) -> None:
    row = json.loads(
        command_without_extras("recommend", "--table", finished.table, "--user", "user 3", "--json").stdout
    )[0]
    assert row["RUN_ID"] == "first"
    for arguments in (["recommend", "--user=user 3"], ["history"], ["check", "--max-age=9999d"]):
        done = command_without_extras(*arguments, "--table", finished.table)
        assert done.returncode == 0, done.stderr
        assert "first" in done.stdout
    done = command_without_extras("rollback", "--table", finished.table)
    assert "one publish only" in done.stderr
    done = command_without_extras("show", "--store", finished.store, "--run-id", "first")
    assert "Gate: passed" in done.stdout, done.stderr
    assert "rollback" in command_without_extras("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--source=s", "--store=s", "--table=t"], needs("yaml")),
        (["recommend", "--table=postgresql:///x", "--user=u"], needs("adbc_driver_postgresql")),
        (["recommend", "--table=parquet+s3://bucket/table", "--user=u"], needs("s3fs")),
        (["history", "--table=t", "--picture=p.svg"], needs("matplotlib")),
    ],
)
def test_what_needs_an_extra_says_which(arguments: list[str], told: str) -> None:
    done = command_without_extras(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_holding_rows_against_the_contract_needs_no_pytorch(finished: Any) -> None:
    told = needs("pandera")
    assert told == "needs pandera: pip install 'sasrec-tasks[contract]', or [train] if it shall train, too"
    of_extra = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {requirement.partition(">=")[0] for requirement in of_extra["contract"]} == {"pandera", "pyyaml"}
    assert set(of_extra["contract"]) <= set(of_extra["train"])
    code = (
        WITHOUT_EXTRAS.replace("'pandera', ", "").replace(", 'yaml'", "")
        + "from sasrec_tasks.contract import checked; from sasrec_tasks.tables import open_tables\n"
        "print(sum(map(len, checked(open_tables(sys.argv[1]).rows(0)))))"
    )
    done = python(code, finished.table)
    assert done.stdout.strip() == "1000", done.stderr


def test_training_without_pytorch_says_so(place: Any) -> None:
    place.run("run", upto="split")
    done = command_without_extras("train", "--store", place.store, "--run-id", "run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "train: needs PyTorch: pip install 'sasrec-tasks[train]'" in done.stderr


# Fresh environments

INSTALLED = (
    "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
)

RUN = [
    "--set=train.epochs=1",
    "--set=evaluate.bootstrap_samples=100",
    "--set=gate.force_publish=true",
    "--json",
]


def pip(executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = shlex.split(os.environ.get("PIP_ARGS", ""))  # of `make test PIP_ARGS=…`
    return subprocess.run(
        [executable, "-m", "pip", arguments[0], "--disable-pip-version-check", *options, *arguments[1:]],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    reached = pip(sys.executable, "download", "--no-deps", f"--dest={folder}/reached", "typing_extensions")
    if reached.returncode:
        pytest.skip(f"pip reaches no index: {reached.stderr.strip().splitlines()[-1]}")
    built = pip(sys.executable, "wheel", "--no-deps", f"--wheel-dir={folder}", str(PROJECT))
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> str:
    """Python of a fresh environment with one extra, or none."""
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    asked = f"{wheel}[{request.param}]" if request.param else str(wheel)
    constraints = PROJECT / "constraints.txt"
    done = pip(python, "install", "--quiet", "--no-compile", f"--constraint={constraints}", asked)
    assert done.returncode == 0, done.stderr
    return python


def modules(executable: str) -> list[str]:
    """Which modules of extras are installed."""
    done = python(INSTALLED, "airflow", *EXTRAS, executable=executable)
    found: list[str] = json.loads(done.stdout.replace("'", '"'))
    return found


def call(executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = str(Path(executable).with_name("sasrec-tasks"))
    return subprocess.run(
        [command, *arguments], capture_output=True, text=True, cwd=Path(executable).parents[2]
    )


def publish_copy(of: str, to: str) -> None:
    """The newest rows of a table, in another."""
    tables = open_tables(of)
    newest = next(tables.published())
    rows = iter(tables.rows(newest.version))
    open_tables(to).publish(
        rows, tables.popular(), run_id=newest.run_id, as_of=newest.as_of, metadata=newest.metadata
    )


@pytest.mark.extras
@pytest.mark.parametrize("environment", [""], indirect=True)
def test_without_extras_there_is_the_reader_and_little_else(environment: str, finished: Any) -> None:
    assert modules(environment) == []
    code = "import sys; from sasrec_tasks.tables import Recommendations as R; print(R(sys.argv[1]).users())"
    assert python(code, finished.table, executable=environment).stdout.strip() == "100"
    done = call(environment, "recommend", "--table", finished.table, "--user", "user 3", "--json")
    assert len(json.loads(done.stdout)) == 10


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["train"], indirect=True)
def test_train_runs_the_pipeline(environment: str, place: Any) -> None:
    assert modules(environment) == ["torch", "safetensors", "pandera", "yaml"]
    places = [f"--source={place.source}", f"--store={place.store}", f"--table={place.table}"]
    done = call(environment, "run", *places, *RUN)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["published"] is True
    assert python("import sasrec_tasks.api", executable=environment).returncode == 0


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["contract"], indirect=True)
def test_contract_holds_rows_against_it(environment: str, finished: Any) -> None:
    assert modules(environment) == ["pandera", "yaml"]
    code = (
        "import sys; from sasrec_tasks.contract import checked; from sasrec_tasks.tables import open_tables\n"
        "print(sum(map(len, checked(open_tables(sys.argv[1]).rows(0)))))"
    )
    assert python(code, finished.table, executable=environment).stdout.strip() == "1000"


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["airflow"], indirect=True)
def test_airflow_parses_the_dags(environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = modules(environment)
    assert "airflow" in found
    assert not {"torch", "pandera", "s3fs", "adbc_driver_postgresql"} & set(found)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    files = [str(file) for file in sorted((PROJECT / "dags").glob("*.py"))]
    assert files
    code = "import runpy, sys; [runpy.run_path(file) for file in sys.argv[1:]]"
    done = python(code, *files, executable=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["postgres"], indirect=True)
def test_postgres_reads_a_table_in_a_database(environment: str, finished: Any, postgres: str) -> None:
    assert modules(environment) == ["adbc_driver_manager", "adbc_driver_postgresql"]
    publish_copy(finished.table, table := f"{postgres}&table=extras")
    done = call(environment, "recommend", "--table", table, "--user", "user 3", "--json")
    assert len(json.loads(done.stdout)) == 10


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["s3"], indirect=True)
def test_s3_reads_a_table_on_s3(environment: str, finished: Any, bucket: str) -> None:
    assert modules(environment) == ["s3fs"]
    publish_copy(finished.table, table := f"parquet+{bucket}/table")
    done = call(environment, "recommend", "--table", table, "--user", "user 3", "--json")
    assert len(json.loads(done.stdout)) == 10


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["ray"], indirect=True)
def test_ray_starts_jobs_on_a_cluster(environment: str) -> None:
    assert modules(environment) == ["yaml", "ray"]
    submits = "import sasrec_tasks.jobs; from ray.job_submission import JobSubmissionClient"
    done = python(submits, executable=environment)
    assert done.returncode == 0, done.stderr


def test_a_module_that_no_extra_installs_has_no_advice() -> None:
    assert needs("torch.nn.functional") == "needs PyTorch: pip install 'sasrec-tasks[train]'"
    assert needs("numpy") == needs("") == ""


@pytest.mark.extras
@pytest.mark.parametrize("environment", ["pictures"], indirect=True)
def test_pictures_draw_the_history(environment: str, finished: Any, tmp_path: Path) -> None:
    assert modules(environment) == ["matplotlib"]
    picture = tmp_path / "history.svg"
    done = call(environment, "history", "--table", finished.table, f"--picture={picture}")
    assert done.returncode == 0, done.stderr
    assert "<svg" in picture.read_text()


@pytest.mark.extras
@pytest.mark.parametrize(
    ("environment", "brought"),
    [
        (
            "alerts",
            [
                "airflow.providers.slack.notifications.slack_webhook",
                "airflow.providers.smtp.notifications.smtp",
            ],
        ),
        (
            "stack",
            [
                "airflow.providers.celery.executors.celery_executor",
                "airflow.providers.cncf.kubernetes.executors.kubernetes_executor",
                "airflow.providers.fab.auth_manager.fab_auth_manager",
                *("asyncpg", "psycopg2", "statsd"),
            ],
        ),
    ],
    ids=["alerts", "stack"],
    indirect=["environment"],
)
def test_what_airflow_is_to_use_is_there(
    environment: str, brought: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    done = python(f"import {', '.join(brought)}", executable=environment)
    assert done.returncode == 0, done.stderr
