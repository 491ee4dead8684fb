"""What may be recommended: the table holds nothing else, and only what may not be is missing."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sasrec_tasks import pipeline
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.tables import Recommendations, open_tables

K = 10
USERS = [f"user {number}" for number in range(100)]
ITEMS = [f"item {number}" for number in range(60)]
numbers = count()


class Narrowed:
    """Runs of one model with other settings of the export; each has a table of its own."""

    def __init__(self, trained: Any, folder: Path) -> None:
        self.trained, self.folder = trained, folder
        self.source = pd.read_parquet(trained.source)
        self.seen = set(self.source[["USER_ID", "ITEM_ID"]].itertuples(index=False, name=None))
        self.catalogue = set(self.source["ITEM_ID"])
        self.table = ""

    def write(self, name: str, **columns: Any) -> str:
        path = str(self.folder / f"{name}.parquet")
        pq.write_table(pa.table(columns), path)
        return path

    def start(self, run_id: str | None = None, **export: Any) -> Any:
        """A run whose model is trained; `export` is to be run."""
        run_id = run_id or f"run{next(numbers)}"
        self.table = f"{self.folder}/tables/{run_id}"
        store = self.trained.start("first", {f"export.{name}": value for name, value in export.items()})
        own = Path(store.root).parent / run_id
        shutil.copytree(store.root, own, ignore=shutil.ignore_patterns("export", "eligible", ".*"))
        return self.again(run_id, **export)

    def again(self, run_id: str, **export: Any) -> Any:
        """The same run, with these settings."""
        return self.trained.start(
            run_id, {"table": self.table, **{f"export.{name}": value for name, value in export.items()}}
        )

    def lists(self, **export: Any) -> pd.DataFrame:
        """The rows that are published."""
        run_task("export", self.start(**export).uri)
        return self.rows()

    def rows(self) -> pd.DataFrame:
        return Recommendations(self.table).to_pandas()


@pytest.fixture(scope="module")
def narrowed(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Narrowed:
    folder = tmp_path_factory.mktemp("narrowed")
    place = type(finished)(folder)
    shutil.copy(finished.source, place.source)
    place.run("first", upto="gate")
    return Narrowed(place, folder)


@pytest.fixture(scope="module")
def whole(narrowed: Narrowed) -> dict[str, list[str]]:
    """Each user's ranking of everything that they have not seen."""
    rows = narrowed.lists(top_k=1000)
    return {str(user): own["ITEM_ID"].tolist() for user, own in rows.groupby("USER_ID")}


pairs = st.lists(
    st.tuples(st.sampled_from([*USERS, "nobody"]), st.sampled_from([*ITEMS, "nothing"])), max_size=300
)
some_items = st.lists(st.sampled_from(ITEMS), min_size=1, max_size=60)


@given(
    eligible=some_items | st.none(),
    excluded=pairs | st.none(),
    k=st.sampled_from([1, K, 1000]),
    popular=st.integers(1, 70),
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_are_the_whole_ranking_without_what_may_not_be(
    narrowed: Narrowed,
    whole: dict[str, list[str]],
    eligible: list[str] | None,
    excluded: list[tuple[str, str]] | None,
    k: int,
    popular: int,
) -> None:
    """Nothing ineligible, excluded, or seen; in the model's order; short only where nothing eligible is left."""
    tables = {}
    if eligible is not None:
        if not set(eligible) & narrowed.catalogue:
            return
        tables["eligible_items"] = narrowed.write("eligible", ITEM_ID=eligible)
    if excluded is not None:
        users, items = ([pair[side] for pair in excluded] for side in (0, 1))
        tables["excluded_pairs"] = narrowed.write(
            "excluded", USER_ID=pa.array(users, pa.string()), ITEM_ID=pa.array(items, pa.string())
        )
    rows = narrowed.lists(**tables, top_k=k, popular_items=popular)
    may = narrowed.catalogue if eligible is None else set(eligible)
    got = {str(user): own for user, own in rows.groupby("USER_ID")}
    for user, ranking in whole.items():
        expected = [item for item in ranking if item in may and (user, item) not in set(excluded or ())][:k]
        own = got[user]["ITEM_ID"].tolist() if user in got else []
        assert own == expected
        if expected:
            assert got[user]["RANK"].tolist() == list(range(1, len(expected) + 1))
            assert got[user]["SCORE"].is_monotonic_decreasing
            assert set(got[user]["ORIGIN"]) == {"model"}
    assert not set(zip(rows["USER_ID"], rows["ITEM_ID"], strict=True)) & narrowed.seen
    listed = Recommendations(narrowed.table).popular()
    events = narrowed.source["ITEM_ID"].value_counts()
    assert set(listed["ITEM_ID"]) <= may
    assert len(listed) == min(popular, len(may & narrowed.catalogue))
    assert events[listed["ITEM_ID"]].is_monotonic_decreasing


def test_seen_items_can_be_left_in_and_excluded_ones_stay_out(narrowed: Narrowed) -> None:
    user, item = narrowed.source[["USER_ID", "ITEM_ID"]].iloc[0]
    excluded = narrowed.write("one", USER_ID=[user], ITEM_ID=[item])
    rows = narrowed.lists(excluded_pairs=excluded, exclude_seen=False, top_k=1000)
    own = rows[rows["USER_ID"] == user]
    assert set(own["ITEM_ID"]) == narrowed.catalogue - {item}


def test_nobody_gets_a_popular_item_that_is_left_out_to_them(narrowed: Narrowed) -> None:
    """Those without events have rows if one of the popular items, which they would get, is left out to them."""
    popular = narrowed.source["ITEM_ID"].value_counts().index.tolist()
    may, top = popular[:30], popular[:5]
    pairs = [("a stranger", item) for item in (top[0], top[2], popular[-1])]
    pairs += [("user 33b", top[1]), ("zoe", popular[20]), ("zoe", "nothing"), ("user 1", top[0])]
    narrowed_by = {
        "eligible_items": narrowed.write("may", ITEM_ID=may),
        "excluded_pairs": narrowed.write(
            "pairs", USER_ID=[user for user, _ in pairs], ITEM_ID=[item for _, item in pairs]
        ),
    }
    store = narrowed.start(**narrowed_by, popular_items=5, block_users=7)
    summary = run_task("export", store.uri)
    rows, reader = narrowed.rows(), Recommendations(narrowed.table)
    assert list(rows["USER_ID"]) == sorted(rows["USER_ID"])
    assert set(rows["USER_ID"]) == {*USERS, "a stranger", "user 33b"}  # zoe's is not among the popular items
    for user in ("a stranger", "user 33b"):
        own = [item for item in may if (user, item) not in pairs]
        served = reader.for_user(user)
        counts = narrowed.source["ITEM_ID"].value_counts()
        assert counts[served["ITEM_ID"]].tolist() == counts[own[:K]].tolist()
        assert set(served["ITEM_ID"]) <= set(own)
        assert set(served["ORIGIN"]) == {"popular"}
    assert reader.for_user("zoe")["ITEM_ID"].tolist() == reader.popular()["ITEM_ID"].tolist()
    assert (summary["users"], summary["users_by_origin"]["popular"], summary["users_inactive"]) == (102, 2, 0)
    assert not set(rows[["USER_ID", "ITEM_ID"]].itertuples(index=False, name=None)) & set(pairs)


def test_users_whom_the_model_can_not_read_get_popular_eligible_items(place: Any, chains: Any) -> None:
    events = chains().to_pandas()
    unhappy = [f"user {user}" for user in range(10)]
    events.loc[events["USER_ID"].isin(unhappy), "OUTCOME"] = 1.0
    place.write(pa.Table.from_pandas(events, preserve_index=False))
    positives = events[events["OUTCOME"] >= 3]
    may = sorted(set(events["ITEM_ID"]))[::2]
    out = positives["ITEM_ID"][positives["ITEM_ID"].isin(may)].value_counts().index[0]
    pq.write_table(pa.table({"ITEM_ID": may}), place.folder / "may.parquet")
    pq.write_table(pa.table({"USER_ID": unhappy, "ITEM_ID": [out] * 10}), place.folder / "out.parquet")
    tables = {"eligible_items": "may.parquet", "excluded_pairs": "out.parquet"}
    named = {f"export.{name}": str(place.folder / file) for name, file in tables.items()}
    place.run("run", {"split.min_outcome": 3, **named})
    rows = Recommendations(place.table).to_pandas()
    assert set(rows["ITEM_ID"]) <= set(may)
    popular = rows[rows["ORIGIN"] == "popular"]
    assert set(popular["USER_ID"]) >= set(unhappy)
    for user in unhappy:
        seen = set(events[events["USER_ID"] == user]["ITEM_ID"])
        counts = positives["ITEM_ID"][positives["ITEM_ID"].isin(set(may) - seen - {out})].value_counts()
        own = popular[popular["USER_ID"] == user]["ITEM_ID"]
        assert counts[own].tolist() == counts.iloc[:K].tolist()


def at(*days: int | None) -> pa.Array:
    """Midnights of days of December 2025 and on; as_of is the 32nd."""
    moments = [
        None if day is None else datetime(2025, 12, 1, tzinfo=UTC).timestamp() + 86_400 * (day - 1)
        for day in days
    ]
    seconds = pa.array([None if moment is None else int(moment) for moment in moments], pa.int64())
    return seconds.cast(pa.timestamp("s"))


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ms", tz="Europe/Rome"), pa.date32()]
)
def test_items_are_eligible_at_as_of(narrowed: Narrowed, kind: pa.DataType) -> None:
    """From its first moment on, before its last; any of several rows will do."""
    table = narrowed.write(
        "times",
        ITEM_ID=["item 1", "item 2", "item 3", "item 4", "item 5", "item 8", "item 8", "item 7"],
        AVAILABLE_FROM=at(None, 32, 33, None, 20, 1, 30, 1).cast(kind),
        available_until=at(None, None, None, 32, 33, 2, 40, 31).cast(kind),
    )
    rows = narrowed.lists(eligible_items=table, exclude_seen=False)
    assert set(rows["ITEM_ID"]) == {"item 1", "item 2", "item 5", "item 8"}


def test_what_the_model_does_not_know_is_counted(
    narrowed: Narrowed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = narrowed.start(
        eligible_items=narrowed.write("new", ITEM_ID=["item 1", "item 2", "new 1", "new 2", "new 2"]),
        excluded_pairs=narrowed.write(
            "strangers",
            USER_ID=["user 1", "user 1", "nobody", "nobody", "user 2", "nobody"],
            ITEM_ID=["item 1", "item 1", "item 1", "item 1", "x", "x"],
        ),
    )
    summary = run_task("export", store.uri)
    assert summary["narrowed_by"] == {
        "eligible_items": {"rows": 5, "rows_of_another_time": 0, "items": 2, "items_unknown_to_the_model": 2},
        "excluded_pairs": {
            "rows": 6,
            "pairs": 1,
            "pairs_of_users_without_events": 1,
            "rows_of_items_unknown_to_the_model": 2,
        },
    }
    assert "2 items unknown to the model" in caplog.text
    assert "1 pairs, 1 pairs of users without events, 2 rows of items unknown to the model" in caplog.text


# Active users


@pytest.mark.parametrize("days", [1, 5, 500])
def test_only_active_users_have_rows(place: Any, chains: Any, days: float) -> None:
    events = chains().to_pandas()
    numbers = events["USER_ID"].str.removeprefix("user ").astype(int)
    as_of = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    age = numbers // 10  # days since the last event of the day, at least
    last = events.groupby("USER_ID")["TIMESTAMP"].transform("max")
    events["TIMESTAMP"] += as_of - 86_400 * age - last  # the last one of `user 10` is a day old to the second
    events = events[events["TIMESTAMP"] < as_of]  # and that of `user 0` is too new to be read
    place.write(pa.Table.from_pandas(events, preserve_index=False))
    store = place.run("run", {"export.active_within_days": days})
    ages = as_of - events.groupby("USER_ID")["TIMESTAMP"].max()
    rows = Recommendations(place.table).to_pandas()
    assert set(rows["USER_ID"]) == set(ages[ages <= 86_400 * days].index)
    summary = store.marker("export").summary
    assert summary["users"] == rows["USER_ID"].nunique() == summary["users_by_origin"]["model"]
    assert summary["users_inactive"] == len(ages) - summary["users"]


def test_a_user_who_was_not_active_has_rows_if_a_popular_item_is_left_out(
    narrowed: Narrowed, whole: dict[str, list[str]]
) -> None:
    last = narrowed.source.groupby("USER_ID")["TIMESTAMP"].max().sort_values()
    inactive = [str(user) for user in last.index[:2]]
    newest = datetime.fromtimestamp(int(last.iloc[-1]), UTC)
    days = (datetime(2026, 1, 1, tzinfo=UTC) - newest).total_seconds() / 86_400 + 1e-6
    popular = narrowed.source["ITEM_ID"].value_counts().index
    out = next(item for item in popular if item in whole[inactive[0]])
    pairs = narrowed.write("inactive", USER_ID=inactive[:1], ITEM_ID=[out])
    rows = narrowed.lists(excluded_pairs=pairs, active_within_days=days)
    assert inactive[0] in set(rows["USER_ID"])
    assert inactive[1] not in set(rows["USER_ID"])
    assert out not in set(rows[rows["USER_ID"] == inactive[0]]["ITEM_ID"])


def test_a_table_for_nobody_is_refused(narrowed: Narrowed) -> None:
    store = narrowed.start(active_within_days=0.5)
    with pytest.raises(BadSettings, match=r"export\.active_within_days=0\.5: none of the 100 users"):
        run_task("export", store.uri)
    assert not list(open_tables(narrowed.table).published())


# The same rows again


def test_a_run_that_has_ended_reads_nothing_again(narrowed: Narrowed) -> None:
    table = narrowed.write("stock", ITEM_ID=ITEMS[:30])
    store = narrowed.start("ended", eligible_items=table)
    first, rows = run_task("export", store.uri), narrowed.rows()
    narrowed.write("stock", ITEM_ID=ITEMS[30:])
    assert run_task("export", store.uri) == first
    shutil.rmtree(Path(store.root) / "export")  # cleared by hand: the table knows that the run is published
    assert run_task("export", store.uri) == first
    pd.testing.assert_frame_equal(narrowed.rows(), rows)
    Path(table).unlink()
    narrowed.again("ended", eligible_items=table)
    assert run_task("export", store.uri) == first


def test_a_run_that_has_not_ended_reads_the_tables_as_they_are(
    narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = narrowed.write("stock", ITEM_ID=ITEMS[:30])
    store = narrowed.start("broken", eligible_items=table)
    Path(f"{narrowed.table}_popular").parent.mkdir(parents=True, exist_ok=True)
    Path(f"{narrowed.table}_popular").write_text("in the way")
    with pytest.raises(Exception, match=r"."):
        run_task("export", store.uri)
    assert (Path(store.root) / "eligible" / "_SUCCESS").exists()
    Path(f"{narrowed.table}_popular").unlink()
    narrowed.write("stock", ITEM_ID=ITEMS[30:])
    run_task("export", store.uri)
    assert set(narrowed.rows()["ITEM_ID"]) <= set(ITEMS[30:])


def test_other_tables_under_a_published_name_are_refused(narrowed: Narrowed) -> None:
    one, other = (
        narrowed.write(name, ITEM_ID=items) for name, items in (("a", ITEMS[:30]), ("b", ITEMS[30:]))
    )
    run_task("export", narrowed.start("taken", eligible_items=one).uri)
    rows = narrowed.rows()
    store = narrowed.again("taken", eligible_items=other)
    with pytest.raises(BadSettings, match="published already"):
        run_task("export", store.uri)
    pd.testing.assert_frame_equal(narrowed.rows(), rows)


def test_only_what_looks_at_the_lists_runs_again(narrowed: Narrowed) -> None:
    store = narrowed.start(
        eligible_items=narrowed.write("half", ITEM_ID=ITEMS[:30]), active_within_days=10_000
    )
    before = {task: store.marker(task) for task in pipeline.TASKS}
    for task in pipeline.TASKS:
        run_task(task, store.uri)
    after = {task: store.marker(task) for task in pipeline.TASKS}
    assert {task for task in pipeline.TASKS if before[task] != after[task]} == {"gate", "export"}


# Kinds of tables


def test_a_delta_table_is_read_as_it_was_at_as_of(narrowed: Narrowed, tmp_path: Path) -> None:
    url = str(tmp_path / "stock")
    write_deltalake(url, pa.table({"ITEM_ID": ITEMS[:30]}))
    write_deltalake(url, pa.table({"ITEM_ID": ITEMS[30:]}), mode="overwrite")
    later = datetime(2025, 12, 1, tzinfo=UTC).timestamp() * 1000
    log = Path(url) / "_delta_log"
    for version, moment in ((0, later), (1, later + 86_400_000 * 60)):  # before as_of, and after
        file = log / f"{version:020}.json"
        actions = [json.loads(line) for line in file.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = int(moment)
        file.write_text("\n".join(json.dumps(action) for action in actions))
        os.utime(file, (moment / 1000, moment / 1000))
    rows = narrowed.lists(eligible_items=url)
    assert set(rows["ITEM_ID"]) <= set(ITEMS[:30])


def test_a_table_of_a_database(narrowed: Narrowed, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("stock", pa.table({"item_id": ITEMS[:30]}), mode="replace")
        cursor.execute("CREATE SCHEMA IF NOT EXISTS legal")
        cursor.execute("CREATE TABLE legal.pairs AS SELECT 'user 1' AS user_id, item_id FROM stock")
        connection.commit()
    monkeypatch.setenv("SASREC_CONNECTION_SHOP", postgres)
    rows = narrowed.lists(
        eligible_items="connection:SHOP?table=stock", excluded_pairs="connection:SHOP?table=legal.pairs"
    )
    assert set(rows["ITEM_ID"]) <= set(ITEMS[:30])
    assert set(rows["USER_ID"]) == set(USERS) - {"user 1"}  # who is left nothing
    with pytest.raises(BadSettings, match=r"export\.eligible_items.*no_such"):
        narrowed.start(eligible_items="connection:SHOP?table=no_such")
    with pytest.raises(BadSettings, match=r"export\.eligible_items=.*\?table="):
        narrowed.start(eligible_items="connection:SHOP")


def test_a_place_can_be_of_the_runs_own_day(narrowed: Narrowed) -> None:
    narrowed.write("stock-2026-01-01", ITEM_ID=ITEMS[:30])
    narrowed.write("stock-2026-01-02", ITEM_ID=ITEMS)
    rows = narrowed.lists(eligible_items=f"{narrowed.folder}/stock-{{as_of:%Y-%m-%d}}.parquet")
    assert set(rows["ITEM_ID"]) <= set(ITEMS[:30])
    with pytest.raises(BadSettings, match=r"export\.eligible_items=.*\{day\} is unknown"):
        narrowed.start(eligible_items=f"{narrowed.folder}/stock-{{day}}.parquet")
    with pytest.raises(BadSettings, match=r"export\.eligible_items=.*\{data_interval_end\}"):
        narrowed.start(eligible_items=f"{narrowed.folder}/stock-{{date}}.parquet")


# What can't be used


@pytest.mark.parametrize(
    ("setting", "columns", "says"),
    [
        ("eligible_items", {"SKU": ["a"]}, "missing column ITEM_ID: it has SKU"),
        ("eligible_items", {"ITEM_ID": [1]}, r"ITEM_ID is int64, must be str: set ingest\.cast_ids=true"),
        (
            "eligible_items",
            {"ITEM_ID": ["item 1"], "AVAILABLE_UNTIL": [5]},
            "AVAILABLE_UNTIL is int64, must be timestamp",
        ),
        ("eligible_items", {"ITEM_ID": ["a"], "item_id": ["b"]}, "more than one column ITEM_ID"),
        ("excluded_pairs", {"ITEM_ID": ["item 1"]}, "missing column USER_ID"),
    ],
)
def test_a_table_of_other_columns_is_refused_when_the_run_starts(
    narrowed: Narrowed, setting: str, columns: dict[str, Any], says: str
) -> None:
    table = narrowed.write("bad", **columns)
    with pytest.raises(BadData, match=says) as error:
        narrowed.trained.start("never", {f"export.{setting}": table})
    assert table in str(error.value)
    assert not (Path(narrowed.trained.store) / "never").exists()


@pytest.mark.parametrize(
    ("setting", "columns", "says"),
    [
        ("eligible_items", {"ITEM_ID": ["item 1", None, "item 2", None]}, r"ITEM_ID is missing \(2 row.* row 1: None"),
        ("eligible_items", {"ITEM_ID": ["item 1", ""]}, r"ITEM_ID is empty \(1 row.* row 1: ''"),
        ("eligible_items", {"ITEM_ID": pa.array([], pa.string())}, "leaves nothing to recommend: it has no rows"),
        ("eligible_items", {"ITEM_ID": ["sku-1", "sku-0"]}, "none of its 2 available.*'sku-0', where .*'item 1'"),
        ("eligible_items", {"ITEM_ID": ["item 1"], "AVAILABLE_UNTIL": at(32)}, "all 1 rows are of another time"),
        ("excluded_pairs", {"USER_ID": ["u", ""], "ITEM_ID": [None, "i"]}, "USER_ID is empty.*ITEM_ID is missing"),
    ],
)  # fmt: skip
def test_a_bad_table_leaves_what_is_published(
    narrowed: Narrowed, setting: str, columns: dict[str, Any], says: str
) -> None:
    run_task("export", narrowed.start().uri)
    before, url = narrowed.rows(), narrowed.table
    table = narrowed.write("bad", **columns)
    store = narrowed.start(**{setting: table})
    narrowed.table = url
    store = narrowed.again(store.run_id, **{setting: table})
    with pytest.raises(BadData, match=says) as error:
        run_task("export", store.uri)
    assert f"export.{setting}" in str(error.value)
    assert table in str(error.value)
    pd.testing.assert_frame_equal(narrowed.rows(), before)


def test_integer_ids_are_taken_where_those_of_the_source_are(front: Any) -> None:
    events = [("1", str(item), 1.0, 1_700_000_000 + item) for item in range(5)] + [
        ("2", "0", 1.0, 1_700_000_000)
    ]
    source = front.write(events)
    table = front.write(pa.table({"ITEM_ID": [1, 2]}), "may.parquet")
    named = {"export__eligible_items": table}
    with pytest.raises(BadData, match="cast_ids"):
        front.run(source, upto="ingest", **named)
    front.run(source, upto="ingest", run_id="cast", ingest__cast_ids=True, **named)


def test_what_may_be_recommended_is_the_operators(tmp_path: Path, narrowed: Narrowed) -> None:
    own = {"source": "/d", "store": "/s", "table": "/t", "eligible_items": "/d/may.parquet"}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    found = pipeline.triggered_settings({"export.top_k": 3}, {}, own.get, moment)
    assert (found.export.eligible_items, found.export.excluded_pairs, found.export.top_k) == (
        "/d/may.parquet",
        None,
        3,
    )
    for name in ("eligible_items", "excluded_pairs"):
        with pytest.raises(BadSettings, match=f"export.{name}: only the operator"):
            pipeline.triggered_settings({}, {f"export.{name}": "/etc"}, own.get, moment)
        table = narrowed.write("outside", USER_ID=["u"], ITEM_ID=["item 1"])
        roots = [narrowed.trained.source, narrowed.trained.store, narrowed.trained.table]
        with pytest.raises(BadSettings, match=f"export.{name}=.*outside the allowed roots"):
            narrowed.trained.start("never", {f"export.{name}": table, "ingest.allowed_roots": roots})


def test_scores_are_those_of_the_whole_ranking(narrowed: Narrowed) -> None:
    rows = narrowed.lists(top_k=1000).set_index(["USER_ID", "ITEM_ID"])["SCORE"]
    some = narrowed.lists(eligible_items=narrowed.write("half", ITEM_ID=ITEMS[::2]))
    expected = rows[pd.MultiIndex.from_frame(some[["USER_ID", "ITEM_ID"]])]
    np.testing.assert_allclose(some["SCORE"], expected, atol=1e-5)
