"""Every row is held against the contract, whatever chunk it lies in, and every problem is told."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sasrec_tasks import contents, validate
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.pipeline import run_task

T = 1_700_000_000
SCHEMA = Path(__file__).parent.parent / "schemas" / "interactions_schema_with_timestamp_training.yaml"
Row = tuple[str | None, str | None, float | None, int | None]


def good(count: int = 4) -> list[Row]:
    return [(f"u{i % 2}", f"i{i % 3}", 1.0, T + i) for i in range(count)]


def store_of(front: Any) -> RunStore:
    return RunStore.of(front.store, "run")


def rejected(front: Any) -> list[dict[str, Any]]:
    table = pq.read_table(store_of(front).folder("validate") / contents.REJECTED)
    assert table.column_names == ["row", "column", "value", "reason", "file"]
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def report(front: Any) -> dict[str, Any]:
    found: dict[str, Any] = store_of(front).read_json("validate", contents.REPORT)
    return found


def test_a_schema_file_that_is_not_there_is_a_bad_setting(front: Any) -> None:
    with pytest.raises(BadSettings, match=r"validate\.schema_file.*none\.yaml"):
        front.run(front.write(good()), upto="validate", validate__schema_file="none.yaml")
    assert not store_of(front).is_started()  # told before the source is copied


def test_another_schema_may_ask_for_more_or_allow_more(front: Any) -> None:
    content = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    content["columns"][2] |= {"nullable": True, "checks": {"in_range": {"min_value": 0, "max_value": 5}}}
    file = front.folder / "own.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    source = front.write([("a", "x", None, T), ("a", "x", 5.0, T), ("a", "x", 6.0, T), ("a", "x", 0.0, T)])
    own = {"validate__schema_file": str(file), "validate__max_rejected_share": 0.25}
    front.run(source, upto="validate", **own)
    assert [(row["row"], row["column"], row["value"]) for row in rejected(front)] == [(2, "OUTCOME", "6.0")]
    assert "in_range" in rejected(front)[0]["reason"]


def test_lower_bounds_of_ones_own_are_told_as_they_are(front: Any) -> None:
    content = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    content["columns"][0]["checks"] = {"str_length": {"min_value": 2}}
    content["columns"][2]["checks"] = {"ge": 0}
    file = front.folder / "own.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    source = front.write([("a", "x", -1.0, T), ("aa", "x", 5.0, T)])
    front.run(source, upto="validate", validate__schema_file=str(file), validate__max_rejected_share=0.5)
    assert {row["column"]: row["reason"] for row in rejected(front)} == {
        "USER_ID": "fails str_length(2, None)",
        "OUTCOME": "fails greater_than_or_equal_to(0)",
    }


# Types of whole columns


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("USER_ID", [1, 2, 3, 4], r"USER_ID is int64, must be str.*ingest\.cast_ids"),
        ("ITEM_ID", [1.0, 2.0, 3.0, 4.0], "ITEM_ID is double, must be str"),
        ("OUTCOME", ["1", "2", "3", "4"], "OUTCOME is string, must be float"),
        ("TIMESTAMP", [1.0, 2.0, 3.0, 4.0], "TIMESTAMP is double, must be int"),
        ("TIMESTAMP", ["2024-01-01"] * 4, "TIMESTAMP is string, must be int"),
        ("USER_ID", pa.array([b"a"] * 4), "USER_ID is binary, must be str"),
    ],
)
def test_a_column_of_the_wrong_type_is_named_with_the_remedy(
    front: Any, column: str, values: Any, said: str
) -> None:
    table = pq.read_table(front.write(good()))
    table = table.set_column(table.column_names.index(column), column, pa.array(values))
    source = front.write(table)
    with pytest.raises(BadData, match=said) as raised:
        front.run(source, upto="validate")
    assert source in str(raised.value)
    assert len(report(front)["problems"]) == 1


def test_integer_ids_are_text_if_asked(front: Any) -> None:
    table = pa.table({"USER_ID": [1, 2], "ITEM_ID": [-7, 2**62], "OUTCOME": [1.0, 1.0], "TIMESTAMP": [T, T]})
    store = front.run(front.write(table), upto="validate", ingest__cast_ids=True)
    snapshot = pq.read_table(store.folder("ingest") / contents.SNAPSHOT)
    assert snapshot["ITEM_ID"].to_pylist() == ["-7", str(2**62)]


def test_every_problem_is_told_at_once(front: Any) -> None:
    table = pa.table(
        {
            "USER_ID": [1] * 10,
            "ITEM_ID": ["x"] * 9 + [None],
            "OUTCOME": [float("nan")] * 4 + [1.0] * 6,
            "TIMESTAMP": pa.array([-1] + [T] * 9).cast(pa.float64()),
        }
    )
    with pytest.raises(BadData) as raised:
        front.run(front.write(table), upto="validate")
    for said in (
        "USER_ID is int64",
        "TIMESTAMP is double",
        "ITEM_ID is missing (1 row",
        "not a finite number (4 row",
    ):
        assert said in str(raised.value)
    assert report(front)["rejected"] == 5


# Rows


def expected(rows: list[Row]) -> Counter[tuple[int, str, str | None, str]]:
    """What is to be rejected, told row by row."""
    found: Counter[tuple[int, str, str | None, str]] = Counter()
    for number, (user, item, outcome, time) in enumerate(rows):
        for column, text in (("USER_ID", user), ("ITEM_ID", item)):
            if text is None:
                found[number, column, None, "is missing"] += 1
            elif text == "":
                found[number, column, "", "is empty"] += 1
            elif "\0" in text:
                found[number, column, text, "has a NUL character, which databases don't take"] += 1
        if outcome is None:
            found[number, "OUTCOME", None, "is missing"] += 1
        elif not math.isfinite(outcome):
            found[number, "OUTCOME", str(outcome), "is not a finite number"] += 1
        if time is None:
            found[number, "TIMESTAMP", None, "is missing"] += 1
        elif time < 0:
            found[number, "TIMESTAMP", str(time), "is not a time (before 1970)"] += 1
    return found


texts = st.sampled_from(["a", "b", "'", "é", "a\0b", "", None])
rows_with_bad_ones = st.lists(
    st.tuples(
        texts,
        texts,
        st.sampled_from([1.0, 0.0, -2.5, float("nan"), float("inf"), float("-inf"), None]),
        st.sampled_from([T, 0, -1, -(2**63), None]),
    ),
    min_size=1,
    max_size=20,
)


@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=rows_with_bad_ones, per_file=st.integers(5, 20), chunk=st.sampled_from([3, 7]))
def test_bad_rows_are_set_aside_with_their_reason_across_chunks_and_files(
    tmp_path_factory: pytest.TempPathFactory,
    front_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    rows: list[Row],
    per_file: int,
) -> None:
    monkeypatch.setattr(validate, "ROWS_AT_ONCE", chunk)
    front = front_at(tmp_path_factory.mktemp("rows"))
    for first in range(0, len(rows), per_file):
        front.write(rows[first : first + per_file], f"data/{first:02d}.parquet")
    wanted = expected(rows)
    bad = len({row for row, *_ in wanted})
    try:
        front.run(
            f"{front.folder}/data",
            upto="validate",
            validate__max_rejected_share=1,
            ingest__timestamp_unit="s",
        )
    except BadData:
        assert bad == len(rows)
    found = rejected(front)
    assert Counter((row["row"], row["column"], row["value"], row["reason"]) for row in found) == wanted
    assert [row["row"] for row in found] == sorted(row["row"] for row in found)
    assert all(Path(row["file"]).stem == f"{row['row'] // per_file * per_file:02d}" for row in found)
    told = report(front)
    assert (told["rows"], told["rejected"]) == (len(rows), bad)
    assert {(r["column"], r["reason"]): r["count"] for r in told["reasons"]} == Counter(
        (column, reason) for _, column, _, reason in wanted
    )


def test_an_outcome_too_large_for_the_model_is_not_finite_there(front: Any) -> None:
    rows = [*good(6), ("a", "x", 1e300, T), ("a", "x", -1e39, T), ("a", "x", 3e38, T)]
    front.run(front.write(rows), validate__max_rejected_share=0.9)
    assert [(row["row"], row["value"]) for row in rejected(front)] == [(6, "1e+300"), (7, "-1e+39")]


def test_a_check_that_a_column_can_not_be_asked_is_a_bad_setting(front: Any) -> None:
    content = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    content["columns"][2]["checks"] = {"str_length": {"min_value": 1}}
    file = front.folder / "own.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(BadSettings, match=r"str_length.*OUTCOME"):
        front.run(front.write(good()), upto="validate", validate__schema_file=str(file))


def test_long_values_are_kept_whole_in_the_file_and_short_in_the_message(front: Any) -> None:
    content = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    content["columns"][0]["checks"] = {"str_length": {"max_value": 100}}
    file = front.folder / "own.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    source = front.write([*good(), ("u" * 10_000, "x", 1.0, T)])
    with pytest.raises(BadData) as raised:
        front.run(source, upto="validate", validate__schema_file=str(file))
    assert rejected(front)[0]["value"] == "u" * 10_000
    assert "u" * 20 in str(raised.value)
    assert "u" * 200 not in str(raised.value)


@pytest.mark.parametrize(
    ("bad", "rows", "limit"), [(1, 100, 0.01), (29, 100, 0.29), (3, 10, 0.3), (0, 10, 0), (7, 100, 0.07)]
)
def test_the_limit_itself_is_allowed(front: Any, bad: int, rows: int, limit: float) -> None:
    source = front.write([*good(rows - bad), *[("a", None, 1.0, T)] * bad])
    store = front.run(source, upto="validate", validate__max_rejected_share=limit)
    assert store.marker("validate").summary["rejected"] == bad


@pytest.mark.parametrize(("bad", "rows", "limit"), [(2, 100, 0.01), (30, 100, 0.29), (1, 10, 0)])
def test_one_row_more_is_refused(front: Any, bad: int, rows: int, limit: float) -> None:
    source = front.write([*good(rows - bad), *[("a", None, 1.0, T)] * bad])
    with pytest.raises(BadData, match=rf"{bad} of {rows} rows .*validate\.max_rejected_share={limit:g}"):
        front.run(source, upto="validate", validate__max_rejected_share=limit)


def test_nothing_left_is_refused_whatever_the_limit(front: Any) -> None:
    source = front.write([(None, "x", 1.0, T)] * 3)
    with pytest.raises(BadData, match=r"all 3 rows are rejected.*USER_ID is missing \(3 row"):
        front.run(source, upto="validate", validate__max_rejected_share=1)


def test_the_error_has_each_reason_with_count_and_examples(front: Any) -> None:
    """The rare reason at the end too, not only what came first."""
    rows: list[Row] = [*[(None, "x", 1.0, T)] * 50, *[("a", "x", float("inf"), T)] * 2, ("a", "x", 1.0, -9)]
    source = front.write([*rows, *good(10)])
    with pytest.raises(BadData) as raised:
        front.run(source, upto="validate")
    said = str(raised.value)
    for part in ("53 of 63 rows", "USER_ID is missing (50 ",
                 "OUTCOME is not a finite number (2 ", "TIMESTAMP is not a time (before 1970) (1 ",
                 "row 50 ", '"inf"', "row 52 ", '"-9"', source):  # fmt: skip
        assert part in said
    shown = Counter(example["column"] for example in report(front)["examples"])
    assert shown == {"USER_ID": validate.EXAMPLES, "OUTCOME": 2, "TIMESTAMP": 1}
    for example in report(front)["examples"]:
        assert example in rejected(front)


def test_a_few_bad_rows_are_told_and_let_pass(front: Any, caplog: pytest.LogCaptureFixture) -> None:
    source = front.write([*good(199), (None, "x", 1.0, T)])
    store = front.run(source, upto="validate")
    summary = store.marker("validate").summary
    assert (summary["rows"], summary["rejected"], summary["problems"]) == (200, 1, [])
    assert summary["profile"]["rows"] == 199
    assert "USER_ID is missing (1 " in caplog.text


def test_the_report_of_a_failure_is_kept_and_running_again_fails_again(front: Any) -> None:
    source = front.write([(None, "x", 1.0, T), *good()])
    said = []
    for _ in range(2):
        with pytest.raises(BadData) as raised:
            front.run(source, upto="validate")
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert report(front)["problems"]
    assert len(rejected(front)) == 1
    json.dumps(report(front), allow_nan=False)


def test_what_validate_refused_goes_no_further(front: Any) -> None:
    source = front.write([(None, "x", 1.0, T), *good(9)])
    with pytest.raises(BadData):
        front.run(source, upto="validate")
    with pytest.raises(BadData, match="USER_ID is missing"):
        run_task("split", store_of(front).uri)
    assert store_of(front).marker("split") is None


def test_a_mended_source_or_a_raised_limit_goes_on(front: Any) -> None:
    source = front.write([(None, "x", 1.0, T), *good(9)])
    with pytest.raises(BadData):
        front.run(source)
    front.run(source, validate__max_rejected_share=0.1)
    front.write(good(9))
    store = front.run(source)
    summary = store.marker("validate").summary
    assert (summary["rows"], summary["rejected"], summary["problems"]) == (9, 0, [])
    assert store.marker("split").summary["events"] == 9
