from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sasrec_tasks.api import InteractionsDataset, ItemsDataset
from sasrec_tasks.schema import interactions_schema_file

Write = Callable[[pd.DataFrame, str], Path]
Table = Callable[[list[Any]], pd.DataFrame]

ODD = [
    "NA",
    "null",
    "007",
    "nan",
    "None",
    "1e3",
    " x ",
    "a,b",
    'say "hi"',
    "two\nlines",
    "\U0001f3ac",
    "ß",
    "-",
]
FILES = ["t.csv", "t.csv.gz", "t.parquet"]


@pytest.mark.parametrize("schema", [None, interactions_schema_file()])
@pytest.mark.parametrize("name", FILES)
def test_odd_ids_come_back_as_they_went_in(
    write: Write, table: Table, name: str, schema: Path | None
) -> None:
    rows = [(id_, id_, 0.5, time) for time, id_ in enumerate(ODD)]
    frame = InteractionsDataset(write(table(rows), name), client_schema_path=schema).fetch_data()
    assert list(frame[["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]].itertuples(index=False)) == rows


@given(
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1), min_size=1
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_text_is_an_id_in_a_csv(write: Write, ids: list[str]) -> None:
    file = write(pd.DataFrame({"ITEM_ID": [*ids, "not a number"]}), "items.csv")
    assert ItemsDataset(file).fetch_data()["ITEM_ID"].tolist() == [*ids, "not a number"]


def test_lines_within_ids_are_kept_in_a_csv_of_many_blocks(write: Write) -> None:
    ids = [f"{'long ' * 20}\n{row}" for row in range(20_000)]  # 2 MB, pyarrow reads 1 MiB at a time
    assert (
        ItemsDataset(write(pd.DataFrame({"ITEM_ID": ids}), "t.csv")).fetch_data()["ITEM_ID"].tolist() == ids
    )


@pytest.mark.parametrize(("ids", "read"), [
    (["7", "12", "-3"], [7, 12, -3]),
    (["7", "007"], ["7", "007"]),
    (["7", "x"], ["7", "x"]),
    (["7", "7.0"], ["7", "7.0"]),
    (["9223372036854775808"], ["9223372036854775808"]),
])  # fmt: skip
def test_ids_of_a_csv_are_integers_only_where_nothing_is_lost(
    write: Write, ids: list[str], read: list[Any]
) -> None:
    assert (
        ItemsDataset(write(pd.DataFrame({"ITEM_ID": ids}), "t.csv")).fetch_data()["ITEM_ID"].tolist() == read
    )


def test_ids_of_a_parquet_file_keep_its_types(write: Write) -> None:
    frame = pd.DataFrame({"USER_ID": ["1", "2"], "ITEM_ID": [7, 8], "TIMESTAMP": [0, 1]})
    read = InteractionsDataset(write(frame, "t.parquet")).fetch_data()
    assert read["USER_ID"].tolist() == ["1", "2"]
    assert read["ITEM_ID"].tolist() == [7, 8]


def test_a_folder_of_parquet_files_is_one_table(write: Write, table: Table, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for part in range(3):
        write(table([("u", f"i{part}", 1.0, part)]), f"parts/{part}.parquet")
    assert InteractionsDataset(tmp_path / "parts").fetch_data()["ITEM_ID"].tolist() == ["i0", "i1", "i2"]


def test_a_schema_turns_ids_into_strings_and_leaves_out_other_columns(write: Write, table: Table) -> None:
    rows = [(1, 2, 1, 3)]
    for source in (write(table(rows), "t.csv"), write(table(rows), "t.parquet"), table(rows)):
        if isinstance(source, pd.DataFrame):
            source["more"] = "x"
        frame = InteractionsDataset(source, client_schema_path=interactions_schema_file()).fetch_data()
        assert frame.to_dict("list") == {
            "USER_ID": ["1"],
            "ITEM_ID": ["2"],
            "OUTCOME": [1.0],
            "TIMESTAMP": [3],
        }


@pytest.mark.parametrize("column", ["USER_ID", "ITEM_ID", "TIMESTAMP"])
@pytest.mark.parametrize("name", [*FILES, None])
def test_a_missing_column_is_named_with_the_file_and_the_schema(
    write: Write, circle: pd.DataFrame, column: str, name: str | None
) -> None:
    without = circle.drop(columns=column)
    source = without if name is None else write(without, name)
    with pytest.raises(ValueError, match=rf"no column {column}\b") as raised:
        InteractionsDataset(source).fetch_data()
    assert (name or "the DataFrame") in str(raised.value)
    assert interactions_schema_file().name in str(raised.value)


@pytest.mark.parametrize("column", ["USER_ID", "OUTCOME"])
def test_a_column_that_the_given_schema_asks_for_is_named_with_it(
    write: Write, circle: pd.DataFrame, column: str
) -> None:
    file = write(circle.drop(columns=column), "t.csv")
    with pytest.raises(ValueError, match=rf"t\.csv: no column {column}\b.*{interactions_schema_file().name}"):
        InteractionsDataset(file, client_schema_path=interactions_schema_file()).fetch_data()


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A schema without TIMESTAMP, ITEM_ID and OUTCOME."""
    file = tmp_path / "short.yaml"
    file.write_text("columns: [{name: USER_ID, type: str}]")
    return file


def test_a_required_column_that_the_given_schema_leaves_out_is_told_as_the_schemas_fault(
    write: Write, circle: pd.DataFrame, short: Path
) -> None:
    said = rf"^{short}: no column {{}}, which is needed.*t\.csv: add it to this schema, which has USER_ID"
    file = write(circle, "t.csv")
    for kind, columns in ((InteractionsDataset, "ITEM_ID, TIMESTAMP"), (ItemsDataset, "ITEM_ID")):
        with pytest.raises(ValueError, match=said.format(columns)):
            kind(file, client_schema_path=short).fetch_data()


def test_of_chosen_columns_only_these_are_held_against_the_schema(write: Write, circle: pd.DataFrame) -> None:
    key = InteractionsDataset.required
    want = circle[list(key)]
    for table in (circle.drop(columns="OUTCOME"), circle.assign(OUTCOME="bad")):
        for source in (table, write(table, "t.csv"), write(table, "t.parquet")):
            for schema in (None, interactions_schema_file()):
                dataset = InteractionsDataset(source, client_schema_path=schema)
                pd.testing.assert_frame_equal(dataset.fetch_data(key), want, check_dtype=False)


@pytest.mark.parametrize("location", [None, 7, [1]])
def test_a_location_that_is_none_is_refused(location: Any) -> None:
    with pytest.raises(TypeError, match=f"data_location must be .*, not {type(location).__name__}"):
        InteractionsDataset(location)


def test_items_need_an_id(write: Write) -> None:
    with pytest.raises(ValueError, match=r"items\.csv: no column ITEM_ID\b.*it has MOVIE; .* to ITEM_ID$"):
        ItemsDataset(write(pd.DataFrame({"MOVIE": ["a"]}), "items.csv")).fetch_data()


@pytest.mark.parametrize(
    ("column", "value"),
    [("OUTCOME", "good"), ("OUTCOME", "inf"), ("TIMESTAMP", "yesterday"), ("TIMESTAMP", "-5"), ("TIMESTAMP", "1.5")],
)  # fmt: skip
def test_a_value_that_breaks_the_schema_is_told_with_file_and_column(
    write: Write, circle: pd.DataFrame, column: str, value: str
) -> None:
    bad = circle.astype({column: str})
    bad.loc[3, column] = value
    with pytest.raises(ValueError, match=rf"{column}.*{value}") as raised:
        InteractionsDataset(write(bad, "t.csv"), client_schema_path=interactions_schema_file()).fetch_data()
    assert "t.csv" in str(raised.value)


def test_bad_values_of_several_columns_are_told_at_once(write: Write, circle: pd.DataFrame) -> None:
    bad = circle.astype({"OUTCOME": str, "TIMESTAMP": str})
    bad.loc[3, "OUTCOME"], bad.loc[5, "TIMESTAMP"], bad.loc[7, "USER_ID"] = "good", "now", None
    with pytest.raises(ValueError, match=r"(?s)USER_ID.*OUTCOME.*good.*TIMESTAMP.*now"):
        InteractionsDataset(write(bad, "t.csv"), client_schema_path=interactions_schema_file()).fetch_data()


def test_blanks_around_numbers_are_no_obstacle_to_a_schema(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("USER_ID,ITEM_ID,OUTCOME,TIMESTAMP\n u,i , 0.5 , 3 \n")
    frame = InteractionsDataset(file, client_schema_path=interactions_schema_file()).fetch_data()
    assert frame.to_dict("list") == {"USER_ID": [" u"], "ITEM_ID": ["i "], "OUTCOME": [0.5], "TIMESTAMP": [3]}


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"/no/such\.csv: no such file: check data_location"):
        ItemsDataset("/no/such.csv").fetch_data()


@pytest.mark.parametrize(("name", "content"), [
    ("t.csv", b"USER_ID,ITEM_ID,TIMESTAMP\na,b\n"),
    ("t.csv", b""),
    ("t.parquet", b"USER_ID,ITEM_ID,TIMESTAMP\na,b,1\n"),
    ("t.csv", b"USER_ID,ITEM_ID,TIMESTAMP\n\xff\xfe,b,1\n"),
    ("t.csv.gz", b"no gzip"),
])  # fmt: skip
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: "):
        InteractionsDataset(tmp_path / name).fetch_data()


def test_a_csv_is_known_by_its_name_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "ITEMS.CSV").write_text("ITEM_ID\nx\n")
    (tmp_path / "items.csv.GZ").write_bytes(gzip.compress(b"ITEM_ID\nx\n"))
    pd.DataFrame({"ITEM_ID": ["x"]}).to_parquet(tmp_path / "items.csv.parquet")
    for name in ("ITEMS.CSV", "items.csv.parquet"):
        assert ItemsDataset(tmp_path / name).fetch_data()["ITEM_ID"].tolist() == ["x"]


def test_a_data_frame_with_values_of_several_kinds_in_a_column_is_told_by_column(
    circle: pd.DataFrame,
) -> None:
    bad = circle.assign(USER_ID=[7, "u"] * 60)
    with pytest.raises(ValueError, match=r"the DataFrame: .*column USER_ID"):
        InteractionsDataset(bad, client_schema_path=interactions_schema_file()).fetch_data()


def test_a_schema_file_that_can_not_be_used_is_named(circle: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("columns: [{name: USER_ID, type: text}]")
    for name in ("bad.yaml", "none.yaml"):
        with pytest.raises(ValueError, match=name):
            InteractionsDataset(circle, client_schema_path=tmp_path / name).fetch_data()


def test_dates_in_a_csv_are_moments(tmp_path: Path) -> None:
    file = tmp_path / "days.csv"
    file.write_text("USER_ID,ITEM_ID,TIMESTAMP\nu,a,2026-01-05\nu,b,2026-01-04\n")
    assert InteractionsDataset(file).fetch_data()["TIMESTAMP"].dt.day.tolist() == [5, 4]


def test_a_column_that_is_there_twice_is_named() -> None:
    frame = pd.DataFrame([["u", "a", "b", 1]], columns=["USER_ID", "ITEM_ID", "ITEM_ID", "TIMESTAMP"])
    with pytest.raises(ValueError, match="more than one column ITEM_ID: rename or drop"):
        InteractionsDataset(frame).fetch_data()


def test_a_csv_of_another_ending_is_told_how_a_csv_is_known(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("USER_ID\tITEM_ID\n")
    with pytest.raises(ValueError, match=r"rows\.tsv: .*a CSV file is told by its ending \.csv"):
        InteractionsDataset(tmp_path / "rows.tsv").fetch_data()
