"""Two pipelines on one machine, and the pool that has one of them train at a time."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow_processes import ROOT

SHOP = """
from sasrec_nightly import make_dag  # Airflow reads a DAG file only if these two words are in it

make_dag("shop", {{"store": "{0}/runs", "table": "{0}/table"}}, schedule=None)
"""
SETTINGS = {
    "train.epochs": 60,
    "train.early_stopping_patience": None,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 200,
    "gate.force_publish": True,
}
"""A training of some seconds: longer than one run is behind the other."""


@pytest.fixture(scope="module")
def documented() -> tuple[list[str], str]:
    """What the documentation says, twice: the command that makes the pool, and SASREC_RESOURCES."""
    texts = [
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("operations.md", "deployment.md")
    ]
    command, other = (re.search(r"^airflow (pools set .*)$", text, re.MULTILINE) for text in texts)
    resources, others = (re.search(r"^SASREC_RESOURCES='(.*?)'", text, re.MULTILINE) for text in texts)
    assert command
    assert other
    assert resources
    assert others
    assert (command[1], resources[1]) == (other[1], others[1])
    return shlex.split(command[1]), resources[1]


@pytest.fixture(scope="module")
def airflow_settings(
    tmp_path_factory: pytest.TempPathFactory, documented: tuple[list[str], str]
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("dags")
    for file in (ROOT / "dags").glob("*.py"):
        (folder / file.name).symlink_to(file)
    (folder / "shop.py").write_text(SHOP.format(tmp_path_factory.mktemp("shop")))
    return {"AIRFLOW__CORE__DAGS_FOLDER": str(folder), "SASREC_RESOURCES": documented[1]}


@pytest.fixture
def two(
    real_airflow: Any, documented: tuple[list[str], str], chains: Callable[[], pa.Table]
) -> Iterator[Any]:
    """Both pipelines at work."""
    source = Path(real_airflow.environment["SASREC_SOURCE"])
    source.mkdir()
    pq.write_table(chains(), source / "events.parquet")
    real_airflow.command(*documented[0])
    with real_airflow.at_work():
        shop = replace(real_airflow, dag="shop")
        shop.ask("PATCH", "dags/shop", {"is_paused": False})
        yield real_airflow, shop


def test_of_two_pipelines_one_trains_at_a_time(two: tuple[Any, Any]) -> None:
    runs = [(airflow, airflow.trigger(SETTINGS)) for airflow in two]
    for airflow, run in runs:
        airflow.succeeded(run)
    tasks = [airflow.task_instances(run) for airflow, run in runs]
    assert {each["train"]["pool"] for each in tasks} == {"sasrec_training"}
    first, second = sorted(tasks, key=lambda each: moment(each, "train", "start_date"))
    assert moment(second, "split", "end_date") < moment(first, "train", "end_date")  # it could have begun
    assert moment(second, "train", "start_date") >= moment(first, "train", "end_date")


def moment(tasks: dict[str, Any], task: str, which: str) -> datetime:
    return datetime.fromisoformat(tasks[task][which])
