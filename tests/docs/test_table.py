"""What docs/table.md tells consumers to write does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from airflow_processes import AIRFLOW, airflow_at

from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "table.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def snippet(language: str, holds: str) -> str:
    """The one block of a language that holds some text."""
    (found,) = [
        block
        for block in re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
        if holds in block
    ]
    return str(found)


def publish(folder: Path, age: timedelta, users: int = 2) -> None:
    as_of = datetime.now(UTC) - age
    common = {"RANK": 1, "ITEM_ID": "i", "SCORE": 0.5, "RUN_ID": "run", "AS_OF": as_of}
    rows = [{**common, "USER_ID": f"u{user}", "ORIGIN": "model"} for user in range(users)]
    open_tables(str(folder / "recommendations")).publish(
        iter([pa.RecordBatch.from_pylist(rows, RECOMMENDATIONS)]),
        pa.Table.from_pylist([{**common, "ORIGIN": "popular"}], POPULAR),
        run_id="run",
        as_of=as_of,
        metadata={},
    )


def of_folder(code: str, folder: Path) -> str:
    return code.replace("s3://shop/recommendations", str(folder / "recommendations"))


@pytest.mark.parametrize(
    ("age", "users", "status"),
    [(timedelta(hours=1), 2, 0), (timedelta(hours=27), 2, 4), (timedelta(hours=1), 1, 4), (None, 0, 2)],
)
def test_the_probe_s_and_the_cron_job_s_exit_status(
    tmp_path: Path, age: timedelta | None, users: int, status: int
) -> None:
    if age is not None:
        publish(tmp_path, age, users)
    probe: list[str] = yaml.safe_load(snippet("yaml", "readinessProbe"))["readinessProbe"]["exec"]["command"]
    commands = (
        [str(BIN / probe[0]), *(of_folder(each, tmp_path) for each in probe[1:])],
        ["bash", "-c", f"{BIN}/{of_folder(snippet('sh', 'sasrec-tasks check'), tmp_path)}"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert bool(done.stderr) is (status != 0)
    assert f"| {status} |" in DOCUMENT


def test_the_sensor_lets_a_fresh_table_pass_and_fails_where_waiting_does_not_help(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    code = snippet("python", "BashSensor")
    (dags / "breakfast.py").write_text(of_folder(code, tmp_path))
    environment = {**airflow_at(tmp_path), "AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"

    def airflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AIRFLOW, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    assert airflow("db", "migrate").returncode == 0
    missing = airflow("dags", "test", "breakfast_mails")
    assert missing.returncode != 0
    assert "Command exited with return code 2" in missing.stdout + missing.stderr
    publish(tmp_path, timedelta(hours=1))
    fresh = airflow("dags", "test", "breakfast_mails")
    assert fresh.returncode == 0, fresh.stdout + fresh.stderr
    assert "fresh: version 0" in fresh.stdout + fresh.stderr


@pytest.mark.parametrize(("status", "sensors"), [(0, 0), (1, 4), (2, 2), (4, 4)])
def test_the_sensor_s_exit_status(status: int, sensors: int) -> None:
    (tail,) = re.findall(r'f"\{CHECK\} (.*)",', snippet("python", "BashSensor"))
    done = subprocess.run(["bash", "-c", f"(exit {status}) {tail}"], check=False)
    assert done.returncode == sensors


def test_a_consumer_s_test_holds_a_table_against_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, timedelta(hours=1))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet("python", "checked_popular"), names)
    assert capsys.readouterr().out == "2 rows and 1 popular items hold\n"
