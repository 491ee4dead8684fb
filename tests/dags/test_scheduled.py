"""A pipeline whose DAG is taken off its pause: the scheduler starts last night's run by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow_processes import ROOT

from sasrec_tasks.tables import Recommendations

SHOP = """
from sasrec_nightly import make_dag  # Airflow reads a DAG file only if these two words are in it

make_dag("shop", {settings})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, chains: Callable[..., pa.Table]) -> Path:
    """Events up to now, and the DAG files of somebody with a pipeline of their own."""
    folder = tmp_path_factory.mktemp("shop")
    events = chains(users=60).to_pandas().sort_values("TIMESTAMP", kind="stable")
    now = int(datetime.now(UTC).timestamp())
    events["TIMESTAMP"] = np.linspace(now - 60 * 86_400, now, len(events)).astype(np.int64)
    pq.write_table(pa.Table.from_pandas(events, preserve_index=False), folder / "events.parquet")
    (folder / "dags").mkdir()
    for file in (ROOT / "dags").glob("*.py"):
        (folder / "dags" / file.name).symlink_to(file)
    settings = {
        "source": str(folder / "events.parquet"),
        "store": str(folder / "runs"),
        "table": str(folder / "table"),
        "train.epochs": 2,
        "train.hidden_units": 16,
        "train.max_len": 20,
        "evaluate.bootstrap_samples": 100,
        "gate.force_publish": True,
    }
    (folder / "dags" / "shop.py").write_text(SHOP.format(settings=settings))
    return folder


@pytest.fixture(scope="module")
def airflow_settings(folder: Path) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
    }


@pytest.fixture(scope="module")
def shop(real_airflow: Any) -> Iterator[Any]:
    airflow = replace(real_airflow, dag="shop")
    with airflow.at_work():
        yield airflow


def test_last_nights_run_starts_by_itself_and_publishes(shop: Any, folder: Path) -> None:
    def scheduled() -> list[str]:
        return [run for run in shop.runs() if run.startswith("scheduled__")]

    (run,) = shop.wait("last night's run", scheduled)
    shop.succeeded(run)
    assert scheduled() == [run]  # nights before it are not filled in
    night = shop.ask("GET", f"dags/shop/dagRuns/{run}")
    table = Recommendations(str(folder / "table"))
    assert (table.run_id, table.as_of) == (run, pd.Timestamp(night["data_interval_end"]))
    assert timedelta(0) <= datetime.now(UTC) - table.as_of < timedelta(days=1, hours=1)
    assert table.metadata["data_interval"][1] == table.as_of.isoformat()
    events = pd.read_parquet(folder / "events.parquet")
    before = events[events["TIMESTAMP"] < table.as_of.timestamp()]
    assert len(before) < len(events)
    assert table.users() == before["USER_ID"].nunique()
