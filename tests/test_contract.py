"""What consumers rely on is held against the rows before they are published."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from sasrec_tasks.contract import checked, checked_popular
from sasrec_tasks.errors import BadData
from sasrec_tasks.rows import Rows
from sasrec_tasks.schema import arrow_type, build_schema, schema_file
from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS


def rows(**changes: list[Any]) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {
        "USER_ID": ["a", "a", "b"],
        "RANK": [1, 2, 1],
        "ITEM_ID": ["x", "y", "x"],
        "SCORE": [2.0, 1.0, 5.0],
        "ORIGIN": ["model", "model", "popular"],
        "RUN_ID": ["r"] * 3,
        "AS_OF": [datetime(2026, 1, 1, tzinfo=UTC)] * 3,
    }
    loose = pa.schema([field.with_nullable(True) for field in RECOMMENDATIONS])
    return pa.RecordBatch.from_pydict({**columns, **changes}, loose)


@pytest.mark.parametrize(
    ("name", "fields"), [("recommendations", RECOMMENDATIONS), ("popular_items", POPULAR)]
)
def test_the_file_has_the_columns_and_types_of_the_table(name: str, fields: pa.Schema) -> None:
    schema = build_schema(schema_file(name))
    assert {name: arrow_type(column) for name, column in schema.columns.items()} == {
        field.name: field.type for field in fields
    }
    assert [column.nullable for column in schema.columns.values()] == [f.nullable for f in fields]


def test_good_rows_pass_as_they_are() -> None:
    batches = [rows(), rows().slice(0, 0)]
    assert pa.Table.from_batches(checked(batches)) == pa.Table.from_batches(batches)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_user_may_go_on_in_the_next_batch(size: int) -> None:
    """As readers of a table give them, a group of rows at a time."""
    whole = rows()
    found = list(checked(whole.slice(start, size) for start in range(0, len(whole), size)))
    assert pa.Table.from_batches(found) == pa.Table.from_batches([whole])
    users = [set(batch["USER_ID"].to_pylist()) for batch in found]
    assert sum(map(len, users)) == len(set().union(*users))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("USER_ID", ["a", "a", ""]),
        ("ITEM_ID", ["x", None, "x"]),
        ("RANK", [0, 1, 1]),
        ("RANK", [1, 3, 1]),
        ("RANK", [2, 1, 1]),
        ("SCORE", [1.0, 2.0, 5.0]),
        ("SCORE", [2.0, float("nan"), 5.0]),
        ("SCORE", [2.0, float("-inf"), 5.0]),
        ("ORIGIN", ["model", "guess", "model"]),
        ("USER_ID", ["a", "b", "a"]),
        ("USER_ID", ["b", "b", "a"]),
        ("ITEM_ID", ["x", "x", "x"]),
        ("RUN_ID", ["r", "r", "s"]),
        ("AS_OF", [datetime(2026, 1, 1, tzinfo=UTC)] * 2 + [datetime(2026, 1, 2, tzinfo=UTC)]),
    ],
)
def test_a_row_that_breaks_it_is_told(column: str, values: list[Any]) -> None:
    with pytest.raises(BadData, match=r"recommendations: \w+.*nothing was published"):
        list(checked([rows(**{column: values})]))


@pytest.mark.parametrize(
    ("column", "values"),
    [("USER_ID", ["a", "a", "c"]), ("RUN_ID", ["s"] * 3)],
)
def test_what_holds_in_each_batch_holds_between_them(column: str, values: list[Any]) -> None:
    later = {"USER_ID": ["c", "c", "d"]}
    assert sum(map(len, checked([rows(), rows().slice(0, 0), rows(**later)]))) == 6
    with pytest.raises(BadData, match=f"recommendations: {column}"):
        list(checked([rows(), rows().slice(0, 0), rows(**{**later, column: values})]))


def test_a_user_who_begins_anew_in_the_next_batch_is_told() -> None:
    with pytest.raises(BadData, match="recommendations: RANK"):
        list(checked([rows(), rows(USER_ID=["b", "b", "c"])]))


def popular(**changes: list[Any]) -> pa.Table:
    columns = {"RANK": [1, 2], "ITEM_ID": ["x", "y"], "SCORE": [0.5, 0.5], "ORIGIN": ["popular"] * 2}
    columns |= {"RUN_ID": ["r"] * 2, "AS_OF": [datetime(2026, 1, 1, tzinfo=UTC)] * 2}
    return pa.Table.from_pydict({**columns, **changes}, POPULAR)


def test_good_popular_items_pass_as_they_are(finished: Any) -> None:
    for good in (popular(), POPULAR.empty_table(), open_tables(finished.table).popular()):
        assert checked_popular(good) is good


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("RANK", [1, 3]),
        ("ITEM_ID", ["x", "x"]),
        ("SCORE", [0.1, 0.2]),
        ("SCORE", [2.0, 0.2]),
        ("ORIGIN", ["popular", "model"]),
        ("RUN_ID", ["r", "s"]),
    ],
)
def test_popular_items_that_break_it_are_told(column: str, values: list[Any]) -> None:
    with pytest.raises(BadData, match=r"popular items: \w+.*nothing was published"):
        checked_popular(popular(**{column: values}))


def test_an_export_that_would_break_it_leaves_the_table(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run("good")
    batches = Rows.batches

    def broken(self: Rows, *how: Any) -> Any:
        for batch in batches(self, *how):
            yield batch.slice(1)  # somebody's first row is lost

    monkeypatch.setattr(Rows, "batches", broken)
    with pytest.raises(BadData, match="RANK"):
        place.run("broken", {"as_of": "2026-02-01"})
    assert [each.run_id for each in open_tables(place.table).published()] == ["good"]
