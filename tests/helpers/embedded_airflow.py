"""An Airflow without its scheduler: a database of its own, and its command line, that runs whole DAGs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from airflow_processes import AIRFLOW, airflow_at

from sasrec_tasks.generate import generate


@dataclass(frozen=True)
class EmbeddedAirflow:
    """Airflow on SQLite, with its operator's places.

    Args:
        home: holds all of it, and the source, the store and the table.
        environment: of the command line.
    """

    home: Path
    environment: Mapping[str, str]

    @classmethod
    def at(cls, home: Path, **environment: str) -> Self:
        """One that is ready to run, on generated interactions."""
        generate(home / "interactions.parquet", users=300, items=2000, events=9000, seed=1)
        places = {
            "SASREC_SOURCE": str(home / "interactions.parquet"),
            "SASREC_STORE": str(home / "runs"),
            "SASREC_TABLE": str(home / "recommendations"),
        }
        own = cls(home, {**airflow_at(home), **places, **environment})
        own.command("db", "migrate")
        return own

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What the command line answers."""
        return subprocess.run(
            [AIRFLOW, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def command(self, *arguments: str) -> str:
        """What a command line prints.

        Raises:
            AssertionError: its status is not 0.
        """
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def test_run(
        self, conf: Mapping[str, Any], dag: str = "sasrec_nightly", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a DAG with some settings."""
        return self.run("dags", "test", dag, "--conf", json.dumps(conf), **environment)

    def id_of_test_run(self, conf: Mapping[str, Any], dag: str = "sasrec_nightly", **environment: str) -> str:
        """Run a DAG with some settings, whatever becomes of it; its run."""
        before = self.run_ids()
        self.test_run(conf, dag, **environment)
        (new,) = self.run_ids() - before
        return new

    def run_ids(self) -> set[str]:
        """All runs so far."""
        return {run_id for (run_id,) in self.query("SELECT run_id FROM dag_run")}

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of Airflow's database."""
        with sqlite3.connect(self.home / "airflow.db", timeout=60) as database:
            return database.execute(sql, values).fetchall()
