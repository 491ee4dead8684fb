"""At the default level no log line names a user: not of a night with all that can be switched on, nor of what people
do with the table; only a message about a bad value may name that value."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import digest, pipeline
from sasrec_tasks.errors import BadData
from sasrec_tasks.forget import forget
from sasrec_tasks.prune import prune
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import Recommendations

MARK = "whose-rows-these-are"
"""In every USER_ID, and nowhere else."""

NIGHT = {
    "gate.force_publish": True,
    "train.epochs": 1,
    "train.cold_start_every": 7,
    "refit.enabled": True,
    "validate.max_rejected_share": 0.5,
    "validate.drift_warn": 1.0001,
    "export.new_item_days": 10_000,
    "export.active_within_days": 3000,
}


@pytest.fixture
def marked(place: Any) -> Any:
    """A place whose users can be told; rows without an outcome, pairs of some and of people without events."""
    events = pq.read_table(place.source)
    users = [f"{MARK} {user}" for user in events["USER_ID"].to_pylist()]
    outcome = events["OUTCOME"].to_numpy().copy()
    outcome[::50] = np.nan
    columns = {"USER_ID": users, "OUTCOME": outcome}
    place.write(pa.table({name: columns.get(name, events[name]) for name in events.column_names}))
    pairs = {"USER_ID": [users[0], users[1], f"{MARK} stranger"], "ITEM_ID": ["item 1", "item 2", "item 0"]}
    pq.write_table(pa.table(pairs), place.folder / "pairs.parquet")
    return place


def settings(place: Any, as_of: str) -> dict[str, Any]:
    return {**NIGHT, "as_of": as_of, "export.excluded_pairs": f"{place.folder}/pairs.parquet"}


def test_a_night_and_what_people_do_with_the_table_name_nobody(
    marked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for month in (1, 2):
            assert pipeline.run_all(marked.start(f"night-{month}", settings(marked, f"2026-0{month}-01")))[
                "published"
            ]
        assert not pipeline.run_all(marked.start("backfill", settings(marked, "2025-12-01")))["published"]
        with pytest.raises(BadData):
            pipeline.run_all(marked.start("refused", {**NIGHT, "validate.max_rejected_share": 0.0}))
        digest.write(marked.table)
        roll_back(marked.table)
        prune(marked.table, marked.store, marked.start("any").settings().prune)
        forget([f"{MARK} user 7"], table=marked.table, store=marked.store)
        pipeline.run_all(marked.start("night-3", settings(marked, "2026-03-01")))
    said = [record for record in caplog.records if record.name.startswith("sasrec_tasks")]
    assert len(said) > 100
    assert any("drift" in record.getMessage() for record in said)
    assert MARK not in caplog.text
    assert MARK in Recommendations(marked.table).to_pandas()["USER_ID"].iloc[0]


def test_the_command_line_logs_nobody(marked: Any, tmp_path: Path) -> None:
    places = ["--source", marked.source, "--store", marked.store, "--table", marked.table]
    chosen = [f"--set={name}={value}" for name, value in settings(marked, "2026-01-01").items()]
    small = ["--set=train.hidden_units=16", "--set=train.max_len=20", "--set=train.device=cpu", "--json"]
    command = [sys.executable, "-m", "sasrec_tasks.cli", "run", *places, *chosen, *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ingest: " in done.stderr
    assert MARK not in done.stderr
    assert MARK not in done.stdout
