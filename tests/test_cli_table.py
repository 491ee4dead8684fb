"""What people ask of the table on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pytest

from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS


class Ended(Protocol):
    status: int
    out: str
    err: str


Command = Callable[..., Ended]


def test_recommend_prints_the_rows_of_a_user(command: Command, finished: Any) -> None:
    ended = command("recommend", "--table", finished.table, "--user", "user 3", "--top-k", "4", "--json")
    rows = json.loads(ended.out)
    assert [row["RANK"] for row in rows] == [1, 2, 3, 4]
    assert {row["USER_ID"] for row in rows} == {"user 3"}
    shown = command("recommend", "--table", finished.table, "--user", "user 3")
    assert shown.status == 0
    assert all(row["ITEM_ID"] in shown.out for row in rows)


def test_recommend_serves_the_popular_items_to_a_stranger(command: Command, finished: Any) -> None:
    ended = command("recommend", "--table", finished.table, "--user", ":smile: [b]", "--json", "--top-k=3")
    best = pd.read_parquet(finished.source)["ITEM_ID"].value_counts().max()
    rows = json.loads(ended.out)
    events = pd.read_parquet(finished.source)["ITEM_ID"]
    assert [row["ORIGIN"] for row in rows] == ["popular"] * 3
    assert (events == rows[0]["ITEM_ID"]).sum() == best
    shown = command("recommend", "--table", finished.table, "--user", ":smile: [b]")
    assert ":smile: [b]: not in" in shown.err
    assert rows[0]["ITEM_ID"] in shown.out


def test_recommend_from_no_table_ends_with_2(command: Command, tmp_path: Path) -> None:
    ended = command("recommend", "--table", str(tmp_path / "table"), "--user", "u")
    assert ended.status == 2
    assert "no table there" in ended.err


# Freshness, and the way back


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two publishes, of 30 hours and of one hour ago."""
    url = str(tmp_path / "table")
    now = datetime.now(UTC)
    for run_id, as_of in (("first", now - timedelta(hours=30)), ("second", now - timedelta(hours=1))):
        about = {"RANK": 1, "ITEM_ID": "i", "SCORE": 1.0, "ORIGIN": "model", "RUN_ID": run_id, "AS_OF": as_of}
        rows = pa.RecordBatch.from_pylist([{"USER_ID": f"u{n}", **about} for n in range(5)], RECOMMENDATIONS)
        open_tables(url).publish(
            iter([rows]), pa.Table.from_pylist([about], POPULAR), run_id=run_id, as_of=as_of, metadata={}
        )
    return url


def test_a_fresh_table_ends_with_0(command: Command, table: str) -> None:
    ended = command("check", "--table", table, "--max-age", "26h", "--min-users", "5")
    assert ended.status == 0
    assert ended.out.startswith("fresh: version 1 of 1.0 h ago, 5 users")
    facts = json.loads(command("check", "--table", table, "--json").out)
    assert facts["fresh"] is True
    assert (facts["version"], facts["run_id"], facts["users"], facts["problems"]) == (1, "second", 5, [])
    assert facts["age_seconds"] == pytest.approx(3600, abs=120)


def test_one_that_is_not_ends_with_4_and_says_why(command: Command, table: str) -> None:
    ended = command("check", "--table", table, "--max-age", "30m", "--min-users", "6")
    assert ended.status == 4
    assert ended.err.startswith("Not fresh: ")
    assert "as_of is 1.0 h ago, --max-age is 30m" in ended.err
    assert "5 users have rows, --min-users is 6" in ended.err
    facts = json.loads(command("check", "--table", table, "--min-users=6", "--json").out)
    assert facts["fresh"] is False
    assert len(facts["problems"]) == 1


def test_an_age_that_means_nothing_ends_with_2(command: Command, table: str, tmp_path: Path) -> None:
    for age in ("", "h", "26", "-1h", "1 week"):
        ended = command("check", "--table", table, f"--max-age={age}")
        assert ended.status == 2
        assert "26h" in ended.err
    assert command("check", "--table", str(tmp_path / "nothing")).status == 2


def test_a_rollback_says_what_is_served(command: Command, table: str) -> None:
    ended = command("rollback", "--table", table)
    assert ended.status == 0
    assert "version 2 serves run first" in ended.out
    assert "instead of run second" in ended.out
    assert command("check", "--table", table).status == 4  # what is served is 30 hours old
    again = json.loads(command("rollback", "--table", table, "--to-run", "second", "--json").out)
    assert (again["version"], again["run_id"], again["instead_of"]) == (3, "second", "first")
    assert command("check", "--table", table).status == 0
    served = command("rollback", "--table", table, "--to-run", "second")
    assert "version 3 serves run second" in served.out
    assert "already: nothing was done" in served.out


def test_a_rollback_to_what_is_not_there_ends_with_2(command: Command, table: str) -> None:
    ended = command("rollback", "--table", table, "--to", "9")
    assert ended.status == 2
    assert "1 (second), 0 (first)" in ended.err
