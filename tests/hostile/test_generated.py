"""Tables made up near the right one: each is published by its contract, or refused by an error of the project's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hostile import data
from hostile.case import Place
from hostile.trial import Standing, place_beside
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sasrec_tasks import contents, contract
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import TASKS, run_task, start
from sasrec_tasks.tables import open_tables

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ids = st.one_of(st.sampled_from(["a", "b", "c"]), texts, st.none())
integers = st.one_of(
    st.integers(1_600_000_000, 1_800_000_000),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, None]),
)
floats = st.one_of(st.floats(0, 5), st.floats(), st.none())

ID_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.dictionary(pa.int32(), pa.string()),
]
INT_TYPES = [
    pa.int64(),
    pa.timestamp("s"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ns"),
    pa.duration("ms"),
    pa.date64(),
]
FLOAT_TYPES = [pa.float64(), pa.float32(), pa.float16(), pa.decimal128(38, 6)]


def _column(rows: int) -> st.SearchStrategy[pa.Array]:
    """A column of some type with values of it."""

    def of(values: st.SearchStrategy[Any], kinds: list[pa.DataType]) -> st.SearchStrategy[pa.Array]:
        lists = st.lists(values, min_size=rows, max_size=rows)
        return st.tuples(lists, st.sampled_from(kinds)).map(lambda made: _cast(*made))

    return st.one_of(
        of(ids, ID_TYPES),
        of(integers, INT_TYPES),
        of(floats, FLOAT_TYPES),
        of(st.booleans() | st.none(), [pa.bool_()]),
        of(st.lists(ids, max_size=2), [pa.list_(pa.string())]),
        of(st.none(), [pa.null()]),
    )


def _cast(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        made = pa.array(values).cast(kind)
        pq.write_table(pa.table({"x": made}), pa.BufferOutputStream())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # what type or file do not hold stays of its own
        return pa.array(values)
    return made


def _near(name: str, rows: int) -> st.SearchStrategy[pa.Array]:
    """The column that is asked for, most of the time."""
    strategy, kind = {
        "USER_ID": (ids, pa.string()),
        "ITEM_ID": (ids, pa.string()),
        "OUTCOME": (floats, pa.float64()),
        "TIMESTAMP": (integers, pa.int64()),
    }[name]
    right = st.lists(strategy, min_size=rows, max_size=rows).map(lambda values: pa.array(values, kind))
    return st.one_of(right, right, right, _column(rows))


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Four columns or fewer or more, in any order."""
    rows = draw(st.integers(0, 12))
    columns = [(name, draw(_near(name, rows))) for name in data.COLUMNS if draw(st.integers(0, 19))]
    names = st.sampled_from(["USER_ID", "user_id", "X"]) | texts.filter(lambda name: "\0" not in name)
    columns += draw(st.lists(st.tuples(names, _column(rows)), max_size=1)) if draw(st.booleans()) else []
    columns = draw(st.permutations(columns))
    return pa.Table.from_arrays([values for _, values in columns], [name for name, _ in columns])


given_settings = st.fixed_dictionaries(
    {},
    optional={
        "ingest.cast_ids": st.booleans(),
        "ingest.default_outcome": st.just(1.0),
        "ingest.timestamp_unit": st.sampled_from(["auto", "s", "ms", "us", "ns"]),
        "ingest.lookback_days": st.floats(1e-6, 1e5),
        "validate.max_rejected_share": st.floats(0, 1),
        "split.min_outcome": st.floats(0, 5),
        "as_of": st.sampled_from(["2026-01-01", "1970-01-02", "9999-12-31"]),
    },
)


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(tables(), min_size=1, max_size=2), values=given_settings)
def test_what_comes_to_the_split_is_what_came_in_and_else_it_is_a_told_error(
    events: list[pa.Table], values: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        for number, table in enumerate(events):
            place.write(table, f"data/{number}.parquet")
        places = {"source": f"{name}/data", "store": place.store, "table": place.table}
        try:
            store = start(from_names({**data.SETTINGS, **places, **values}), "run")
            for task in TASKS[: TASKS.index("split") + 1]:
                run_task(task, store.uri)
        except (BadData, BadSettings) as error:
            said = str(error)
        else:
            said = ""
        if said:
            assert name in said or any(each in said for each in (*data.COLUMNS, *values)), said
            return
        snapshot = pq.read_table(store.folder("ingest") / contents.SNAPSHOT).to_pylist()
        rejected = set(pq.read_table(store.folder("validate") / contents.REJECTED)["row"].to_pylist())
        kept = [row for number, row in enumerate(snapshot) if number not in rejected]
        users = pq.read_table(store.folder("split") / contents.USERS)["USER_ID"].to_pylist()
        assert sorted(users) == sorted({row["USER_ID"] for row in kept})
        came_in = {str(value) for table in events for value in _values(table, "USER_ID")}
        assert set(users) <= came_in


def _values(table: pa.Table, name: str) -> list[Any]:
    return list(table[name].to_pylist()) if name in table.column_names else []


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(texts, min_size=32, max_size=32, unique=True),
    spoilt=st.tuples(ids, ids, floats, integers),
)
def test_what_is_published_fulfils_its_contract_whatever_the_ids(
    standing: Standing, names: list[str], spoilt: data.Row
) -> None:
    """Users and items by any text, and any row more."""
    users = {f"user {n:02d}": names[n] for n in range(20)}
    items = {f"item {n:02d}": names[20 + n] for n in range(12)}
    events = [(users[user], items[item], *rest) for user, item, *rest in data.rows()]
    with tempfile.TemporaryDirectory() as name:
        place = place_beside(standing, Path(name))
        place.write(data.table([*events, spoilt]))
        places = {"source": place.source, "store": place.store, "table": place.table}
        tables = open_tables(place.table)
        try:
            store = start(from_names({**data.SETTINGS, **places}), "run")
            for task in TASKS:
                run_task(task, store.uri)
        except (BadData, BadSettings):
            assert next(tables.published()).version == standing.version
            assert tables.rows(standing.version).read_all().equals(standing.rows)
            return
        newest = next(tables.published())
        rows = tables.rows(newest.version).read_all()
        assert sum(map(len, contract.checked(rows.to_batches()))) == len(rows) > 0
        contract.checked_popular(tables.popular(newest.version))
        assert set(rows["USER_ID"].to_pylist()) <= {*names[:20], spoilt[0]}
