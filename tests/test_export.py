"""The published table, read with DuckDB and Polars alone, and when it is published."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import DeltaTable

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.tables import Recommendations, open_tables

SCHEMA = {
    "USER_ID": pa.string(),
    "RANK": pa.int32(),
    "ITEM_ID": pa.string(),
    "SCORE": pa.float32(),
    "ORIGIN": pa.string(),
    "RUN_ID": pa.string(),
    "AS_OF": pa.timestamp("us", tz="UTC"),
}
ODD_IDS = [
    "it's",
    '"quoted"',
    "a,b;c\td",
    "two\nlines\r\n",
    "🦆🪿",
    "x" * 10_000,
    " spaces ",
    "[/bold] [red]",
    "../../etc",
    "NULL",
    "日本語",
    "%2e%2e",
    "{}$1\\",
]


def rows_of(table: str) -> pd.DataFrame:
    """The newest version by DuckDB, in order."""
    files = DeltaTable(table).file_uris()
    query = "SELECT * FROM read_parquet($1) ORDER BY USER_ID, RANK"
    rows: pd.DataFrame = duckdb.execute(query, [files]).df()
    return rows


def check_lists(rows: pd.DataFrame, source: pd.DataFrame, k: int = 10) -> None:
    """What holds of every table whose lists can be filled."""
    assert set(rows["USER_ID"]) == set(source["USER_ID"])
    assert rows.groupby("USER_ID")["RANK"].apply(list).map(lambda ranks: ranks == list(range(1, k + 1))).all()
    assert set(rows["ITEM_ID"]) <= set(source["ITEM_ID"])
    assert not rows.duplicated(["USER_ID", "ITEM_ID"]).any()
    assert rows.groupby("USER_ID")["SCORE"].apply(lambda scores: scores.is_monotonic_decreasing).all()


def seen_rows(rows: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    return rows.merge(source[["USER_ID", "ITEM_ID"]].drop_duplicates(), on=["USER_ID", "ITEM_ID"])


def test_the_table_is_whole_and_right(finished: Any) -> None:
    source, rows = pd.read_parquet(finished.source), rows_of(finished.table)
    check_lists(rows, source)
    assert len(seen_rows(rows, source)) == 0
    assert set(rows["ORIGIN"]) == {"model"}
    assert set(rows["RUN_ID"]) == {"first"}
    assert set(rows["AS_OF"]) == {pd.Timestamp("2026-01-01", tz="UTC")}


def test_the_columns_are_those_of_the_contract(finished: Any) -> None:
    schema = DeltaTable(finished.table).to_pyarrow_table().schema
    assert dict(zip(schema.names, schema.types, strict=True)) == SCHEMA
    popular = DeltaTable(f"{finished.table}_popular").to_pyarrow_table().schema
    assert popular.names == [name for name in SCHEMA if name != "USER_ID"]


def test_polars_and_duckdb_read_the_same(finished: Any) -> None:
    by_polars = pl.read_delta(finished.table).sort("USER_ID", "RANK").to_pandas()
    by_duckdb = rows_of(finished.table)
    assert by_polars["ITEM_ID"].tolist() == by_duckdb["ITEM_ID"].tolist()
    assert by_polars["SCORE"].tolist() == by_duckdb["SCORE"].tolist()
    assert len(by_polars) == 1000


def test_lists_are_the_models_best_on_the_whole_history(finished: Any) -> None:
    store = RunStore(f"{finished.store}/first")
    model, ids = trained.model(store, store.settings()), contents.item_ids(store)
    source = pd.read_parquet(finished.source).sort_values("TIMESTAMP", kind="stable")
    rows = rows_of(finished.table)
    for user in ("user 0", "user 7", "user 99"):
        history = list(source[source["USER_ID"] == user]["ITEM_ID"])
        index = torch.tensor([[ids.index(item) + 1 for item in history]])[:, -20:]
        with torch.inference_mode():
            scores = (model.item_vectors()[1:] @ model(index)[0, -1]).numpy()
        scores[[ids.index(item) for item in history]] = -np.inf
        best = np.argsort(-scores, kind="stable")[:10]
        own = rows[rows["USER_ID"] == user]
        assert own["ITEM_ID"].tolist() == [ids[item] for item in best]
        assert own["SCORE"].tolist() == pytest.approx(scores[best].tolist(), abs=1e-5)


def test_the_version_says_what_it_is(finished: Any) -> None:
    store = RunStore(f"{finished.store}/first")
    metadata = next(open_tables(finished.table).published()).metadata
    metrics = store.read_json("evaluate", "metrics.json")
    first_event = pd.to_datetime(pd.read_parquet(finished.source)["TIMESTAMP"].min(), unit="s", utc=True)
    assert metadata["run_id"] == "first"
    assert metadata["metrics"]["full"] == metrics["full"]
    assert metadata["metrics"]["sampled"] == metrics["sampled"]
    assert [pd.Timestamp(moment) for moment in metadata["data_interval"]] == [
        first_event,
        pd.Timestamp("2026-01-01", tz="UTC"),
    ]
    assert metadata["model"] == trained.model_hash(store)
    assert metadata["popular_version"] == DeltaTable(f"{finished.table}_popular").version() == 0
    summary = store.marker("export").summary  # type: ignore[union-attr]
    assert (summary["version"], summary["rows"], summary["users"]) == (0, 1000, 100)
    assert summary["users_by_origin"] == {"model": 100, "popular": 0, "none": 0}


def test_popular_items_are_counted_over_all_events(finished: Any) -> None:
    source = pd.read_parquet(finished.source)
    rows = open_tables(finished.table).popular().to_pandas()
    counts = source["ITEM_ID"].value_counts()
    assert rows["RANK"].tolist() == list(range(1, len(counts) + 1))
    assert counts[rows["ITEM_ID"]].is_monotonic_decreasing
    assert rows["SCORE"].tolist() == pytest.approx((counts[rows["ITEM_ID"]] / len(source)).tolist())
    assert set(rows["ORIGIN"]) == {"popular"}


def test_users_without_a_positive_event_are_served_popular_items(place: Any, chains: Any) -> None:
    events = chains().to_pandas()
    unhappy = [f"user {user}" for user in range(10)]
    events.loc[events["USER_ID"].isin(unhappy), "OUTCOME"] = 1.0
    place.write(pa.Table.from_pandas(events, preserve_index=False))
    store = place.run("run", {"split.min_outcome": 3})
    rows = rows_of(place.table)
    check_lists(rows, events)
    assert len(seen_rows(rows, events)) == 0  # low outcomes count as seen
    positives = events[events["OUTCOME"] >= 3]
    served_popular = set(events["USER_ID"]) - set(positives["USER_ID"])
    assert set(rows[rows["ORIGIN"] == "popular"]["USER_ID"]) == served_popular >= set(unhappy)
    assert store.marker("export").summary["users_by_origin"]["popular"] == len(served_popular)
    counts = Counter(positives["ITEM_ID"])
    seen = set(events[events["USER_ID"] == "user 3"]["ITEM_ID"])
    best = sorted((counts[item] for item in set(counts) - seen), reverse=True)[:10]
    own = rows[rows["USER_ID"] == "user 3"]
    assert [counts[item] for item in own["ITEM_ID"]] == best


def test_seen_items_can_be_left_in(place: Any) -> None:
    place.run("run", {"export.exclude_seen": False})
    source, rows = pd.read_parquet(place.source), rows_of(place.table)
    check_lists(rows, source)
    assert len(seen_rows(rows, source)) > 0


def test_a_list_longer_than_the_catalogue_ends_with_it(place: Any) -> None:
    place.run("run", {"export.top_k": 1000})
    source, rows = pd.read_parquet(place.source), rows_of(place.table)
    seen = source.groupby("USER_ID")["ITEM_ID"].nunique()
    catalogue = source["ITEM_ID"].nunique()
    assert rows.groupby("USER_ID").size().to_dict() == (catalogue - seen).to_dict()
    assert rows.groupby("USER_ID")["RANK"].max().to_dict() == (catalogue - seen).to_dict()
    assert len(seen_rows(rows, source)) == 0


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_do_not_show_in_the_table(place: Any, finished: Any, block: int) -> None:
    shutil.copytree(finished.store, place.store)
    place.source = finished.source
    place.start("first", {"export.block_users": block})
    run_task("export", f"{place.store}/first")
    ours, whole = rows_of(place.table), rows_of(finished.table)
    assert ours["ITEM_ID"].tolist() == whole["ITEM_ID"].tolist()
    assert ours["SCORE"].tolist() == pytest.approx(whole["SCORE"].tolist(), abs=1e-5)


@pytest.mark.parametrize("gone", ["nothing", "_SUCCESS", "folder"])
def test_running_again_does_not_publish_again(place: Any, gone: str) -> None:
    store = place.run("run")
    first = store.marker("export").summary
    if gone == "_SUCCESS":
        (Path(store.root) / "export" / "_SUCCESS").unlink()
    if gone == "folder":
        shutil.rmtree(Path(store.root) / "export")
    assert run_task("export", store.uri) == first
    assert DeltaTable(place.table).version() == DeltaTable(f"{place.table}_popular").version() == 0


def test_two_processes_that_overlap_publish_once(place: Any) -> None:
    store = place.run("run", upto="gate")
    command = [sys.executable, "-m", "sasrec_tasks.cli", "export", "--store", place.store, "--run-id=run"]
    processes = [subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE) for _ in range(2)]
    said = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1] == store.marker("export").summary
    assert DeltaTable(place.table).version() == DeltaTable(f"{place.table}_popular").version() == 0


def test_after_a_rollback_the_run_can_be_published_again(place: Any) -> None:
    place.run("a")
    store = place.run("b")
    DeltaTable(place.table).restore(0)
    assert set(rows_of(place.table)["RUN_ID"]) == {"a"}
    assert run_task("export", store.uri)["version"] == 3
    assert set(rows_of(place.table)["RUN_ID"]) == {"b"}
    assert run_task("export", store.uri)["version"] == 3
    assert DeltaTable(place.table).version() == 3


def test_a_backfill_does_not_replace_what_is_newer(place: Any) -> None:
    place.run("february", {"as_of": "2024-02-01"})
    before = rows_of(place.table)
    store = place.run("january", {"as_of": "2024-01-01"})
    pd.testing.assert_frame_equal(rows_of(place.table), before)
    assert DeltaTable(place.table).version() == DeltaTable(f"{place.table}_popular").version() == 0
    summary = store.marker("export").summary
    assert summary["published"] is False
    assert summary["version"] is None
    own = pq.read_table(store.folder("export") / "recommendations.parquet").to_pandas()
    check_lists(own, pd.read_parquet(place.source))
    assert set(own["RUN_ID"]) == {"january"}
    reader = Recommendations(f"parquet+{store.uri}/export")  # the one that reads the table
    pd.testing.assert_frame_equal(reader.to_pandas(), own)
    assert (reader.run_id, reader.version) == ("january", 0)
    assert reader.as_of == datetime(2024, 1, 1, tzinfo=UTC)
    assert Recommendations(f"parquet+{store.uri}/export", version=0).users() == own["USER_ID"].nunique()
    unknown = reader.for_user("nobody")
    assert list(unknown["RANK"]) == list(range(1, len(unknown) + 1))
    assert len(unknown) > 0
    (Path(store.root) / "export" / "_SUCCESS").unlink()
    files = [file for file in (Path(store.root) / "export").iterdir() if file.name != "export.json"]
    written = {file.name: file.read_bytes() for file in files}
    run_task("export", store.uri)
    assert {file.name: file.read_bytes() for file in files} == written


def test_an_old_publish_is_still_known_after_newer_ones(place: Any) -> None:
    store = place.run("january", {"as_of": "2024-01-01"})
    place.run("february", {"as_of": "2024-02-01"})
    shutil.rmtree(Path(store.root) / "export")
    assert run_task("export", store.uri)["version"] == 0
    assert DeltaTable(place.table).version() == 1


def test_other_settings_under_a_published_name_are_refused(place: Any) -> None:
    store = place.run("run")
    place.start("run", {"export.top_k": 5})
    with pytest.raises(BadSettings, match="published already"):
        run_task("export", store.uri)
    assert len(rows_of(place.table)) == 1000


def test_a_damaged_run_leaves_the_old_table_whole(place: Any) -> None:
    place.run("old")
    before = rows_of(place.table)
    store = place.run("new", upto="gate")
    users = Path(store.root) / "split" / "users.parquet"
    whole = users.read_bytes()
    pq.write_table(pq.read_table(users).slice(0, 50), users)
    with pytest.raises(OSError, match=r"users\.parquet"):
        run_task("export", store.uri)
    pd.testing.assert_frame_equal(rows_of(place.table), before)
    users.write_bytes(whole)
    assert run_task("export", store.uri)["version"] == 1


def test_odd_ids_come_out_as_they_went_in(place: Any, chains: Any) -> None:
    events = chains().to_pandas()
    users, items = (sorted(set(events[name])) for name in ("USER_ID", "ITEM_ID"))
    events = events.replace(
        {
            "USER_ID": dict(zip(users, ODD_IDS, strict=False)),
            "ITEM_ID": dict(zip(items, ODD_IDS, strict=False)),
        }
    )
    place.write(pa.Table.from_pandas(events, preserve_index=False))
    place.run("run")
    rows = rows_of(place.table)
    check_lists(rows, events)
    assert len(seen_rows(rows, events)) == 0
    assert set(ODD_IDS) <= set(rows["USER_ID"])
    assert set(ODD_IDS) <= set(rows["ITEM_ID"])
    for user in ODD_IDS:
        assert open_tables(place.table).for_users([user])["RANK"].to_pylist() == list(range(1, 11))


def test_the_reported_hit_rate_is_what_an_outsider_finds(place: Any, chains: Any) -> None:
    whole = chains(users=300)
    place.write(whole)
    reported = place.run("reported", upto="evaluate").read_json("evaluate", "metrics.json")["full"]["hr@10"]
    frame = whole.to_pandas().sort_values(["USER_ID", "TIMESTAMP"], kind="stable")
    last = frame.groupby("USER_ID").tail(1)
    place.write(pa.Table.from_pandas(frame.drop(last.index), preserve_index=False))
    place.run("cut-off")
    hits = rows_of(place.table).merge(last[["USER_ID", "ITEM_ID"]], on=["USER_ID", "ITEM_ID"])
    found = hits["USER_ID"].nunique() / len(last)
    assert found == pytest.approx(reported, abs=0.06)
    assert found > 0.3
