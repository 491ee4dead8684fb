"""What consumers rely on is held against the rows before they are published."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from sasrec_tasks.contract import checked
from sasrec_tasks.errors import BadData
from sasrec_tasks.rows import Rows
from sasrec_tasks.schema import arrow_type, build_schema, schema_file
from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import RECOMMENDATIONS


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


def test_the_file_has_the_columns_and_types_of_the_table() -> None:
    schema = build_schema(schema_file("recommendations"))
    assert {name: arrow_type(column) for name, column in schema.columns.items()} == {
        field.name: field.type for field in RECOMMENDATIONS
    }
    assert [column.nullable for column in schema.columns.values()] == [f.nullable for f in RECOMMENDATIONS]


def test_good_rows_pass_as_they_are() -> None:
    batches = [rows(), rows().slice(0, 0)]
    assert list(checked(batches)) == batches


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
    ],
)
def test_a_row_that_breaks_it_is_told(column: str, values: list[Any]) -> None:
    with pytest.raises(BadData, match=r"recommendations: \w+ .*nothing was published|RANK"):
        list(checked([rows(**{column: values})]))


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
