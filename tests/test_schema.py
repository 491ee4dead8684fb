"""A contract in YAML becomes a pandera schema that checks types too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest
import yaml
from pandera.errors import SchemaErrors

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.schema import build_schema, interactions_schema_file, schema_file

SCHEMA = interactions_schema_file()


def frame(**columns: Any) -> pd.DataFrame:
    types: dict[str, tuple[list[Any], pa.DataType]] = {
        "USER_ID": (["a", "b"], pa.string()),
        "ITEM_ID": (["x", "y"], pa.string()),
        "OUTCOME": ([1.0, 2.0], pa.float64()),
        "TIMESTAMP": ([1, 2], pa.int64()),
    }
    arrays = {name: pd.Series(values, dtype=pd.ArrowDtype(kind)) for name, (values, kind) in types.items()}
    return pd.DataFrame(arrays | columns)


def test_what_fits_passes() -> None:
    build_schema(SCHEMA).validate(frame(), lazy=True)


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("USER_ID", [1, 2], pa.int64()),
        ("ITEM_ID", [1.0, 2.0], pa.float64()),
        ("OUTCOME", ["1", "2"], pa.string()),
        ("OUTCOME", [1, 2], pa.int64()),
        ("TIMESTAMP", [1.0, 2.0], pa.float64()),
        ("TIMESTAMP", ["1", "2"], pa.string()),
    ],
)
def test_a_wrong_type_fails(column: str, values: list[Any], kind: pa.DataType) -> None:
    """pandera's own reader takes this dialect and drops the types: all of these would pass."""
    wrong = frame(**{column: pd.Series(values, dtype=pd.ArrowDtype(kind))})
    with pytest.raises(SchemaErrors) as raised:
        build_schema(SCHEMA).validate(wrong, lazy=True)
    assert column in set(raised.value.failure_cases["column"]) | set(
        raised.value.failure_cases["failure_case"]
    )


def test_a_missing_column_fails() -> None:
    with pytest.raises(SchemaErrors):
        build_schema(SCHEMA).validate(frame().drop(columns="OUTCOME"), lazy=True)


def test_the_file_is_the_contract_of_the_design() -> None:
    columns = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["columns"]
    assert {column["name"]: column["type"] for column in columns} == {
        "USER_ID": "str", "ITEM_ID": "str", "OUTCOME": "float", "TIMESTAMP": "int",
    }  # fmt: skip
    assert all(isinstance(column, pandera.Column) for column in build_schema(SCHEMA).columns.values())


def test_a_column_may_be_left_out_if_the_file_says_so() -> None:
    contract = build_schema(schema_file("eligible_items"))
    ids = pd.Series(["a"], dtype=pd.ArrowDtype(pa.string()))
    contract.validate(pd.DataFrame({"ITEM_ID": ids}))
    moments = pd.Series([None], dtype=pd.ArrowDtype(pa.timestamp("us", tz="UTC")))
    contract.validate(pd.DataFrame({"ITEM_ID": ids, "AVAILABLE_UNTIL": moments}))
    with pytest.raises(SchemaErrors):
        contract.validate(pd.DataFrame({"AVAILABLE_UNTIL": moments}), lazy=True)


@pytest.mark.parametrize(
    "content",
    ["", "columns: {USER_ID: {dtype: str}}", "columns: [USER_ID]", "columns: [{name: A}]",
     "columns: [{name: A, type: text}]", "columns: [{name: A, type: str, nulable: true}]",
     "columns: [{name: A, type: int, checks: {no_such: 1}}]", "a: [", "- a"],
)  # fmt: skip
def test_a_file_that_is_no_schema_is_a_bad_setting(tmp_path: Path, content: str) -> None:
    file = tmp_path / "schema.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadSettings, match=r"schema\.yaml: not a table schema"):
        build_schema(file)
