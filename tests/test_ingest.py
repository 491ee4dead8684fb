"""The snapshot: what is read, under which names, in which unit, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sasrec_tasks import contents
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings

T = 1_700_000_000
ROWS = [("ann", "x", 1.0, T), ("bob", "y", 2.5, T + 1), ("ann", "z", -1.0, T + 2)]
COLUMNS = ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]


def snapshot(store: RunStore) -> pa.Table:
    return pq.read_table(store.folder("ingest") / contents.SNAPSHOT)


def rows_of(store: RunStore) -> list[tuple[Any, ...]]:
    table = snapshot(store)
    assert table.column_names == COLUMNS
    return list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))


def manifest(store: RunStore) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json("ingest", contents.MANIFEST)
    return found


def events(**columns: Any) -> pa.Table:
    plain: dict[str, Any] = {name: pa.array([row[i] for row in ROWS]) for i, name in enumerate(COLUMNS)}
    return pa.table({name: values for name, values in (plain | columns).items() if values is not None})


# Where from


def test_a_file(front: Any) -> None:
    assert rows_of(front.run(front.write(ROWS), upto="ingest")) == ROWS


def test_files_of_a_folder_are_read_by_name(front: Any) -> None:
    front.write(ROWS[2:], "data/b.parquet")
    front.write(ROWS[:1], "data/a/z.parquet")
    front.write(ROWS[1:2], "data/a.parquet")
    (front.folder / "data" / "_SUCCESS").write_text("")
    store = front.run(str(front.folder / "data"), upto="ingest")
    names = [Path(entry["file"]).relative_to(front.folder / "data") for entry in manifest(store)["files"]]
    assert names == sorted(names, key=str)
    in_order = {"a.parquet": ROWS[1:2], "a/z.parquet": ROWS[:1], "b.parquet": ROWS[2:]}
    assert rows_of(store) == [row for name in names for row in in_order[str(name)]]


def test_hive_partitions(front: Any) -> None:
    table = events(day=["1", "1", "2"])
    pq.write_to_dataset(table, str(front.folder / "data"), partition_cols=["day"])
    assert rows_of(front.run(str(front.folder / "data"), upto="ingest")) == ROWS
    assert rows_of(front.run(f"{front.folder}/data/day=2", upto="ingest", run_id="two")) == ROWS[2:]
    assert rows_of(front.run(f"{front.folder}/data/day=*", upto="ingest", run_id="glob")) == ROWS


def test_needed_columns_may_stand_in_the_path(front: Any) -> None:
    odd = ["x/y z", "é=1", "x/y z"]
    table = events().set_column(events().schema.get_field_index("ITEM_ID"), "ITEM_ID", pa.array(odd))
    pq.write_to_dataset(table, str(front.folder / "data"), partition_cols=["ITEM_ID", "OUTCOME"])
    read = rows_of(front.run(str(front.folder / "data"), upto="ingest"))
    wanted = [(row[0], item, *row[2:]) for row, item in zip(ROWS, odd, strict=True)]
    assert sorted(read) == sorted(wanted)


def test_a_path_that_holds_no_number_is_named(front: Any) -> None:
    pq.write_table(events().drop_columns("TIMESTAMP"), front.folder / "a.parquet")
    place = front.folder / "data" / "TIMESTAMP=monday"
    place.mkdir(parents=True)
    (front.folder / "a.parquet").rename(place / "a.parquet")
    with pytest.raises(BadData, match=r"TIMESTAMP=monday.*TIMESTAMP.*monday"):
        front.run(str(front.folder / "data"), upto="ingest")


def test_a_glob(front: Any) -> None:
    front.write(ROWS[:1], "2024-01.parquet")
    front.write(ROWS[1:2], "2024-02.parquet")
    front.write(ROWS[2:], "2023-12.parquet")
    assert rows_of(front.run(f"{front.folder}/2024-*.parquet", upto="ingest")) == ROWS[:2]


@pytest.mark.parametrize("form", ["memory://{}/a.parquet", "memory://{}", "memory://{}/*.parquet"])
def test_an_fsspec_url(front: Any, form: str) -> None:
    place = uuid.uuid4().hex
    with fsspec.open(f"memory://{place}/a.parquet", "wb") as file:
        file.write(Path(front.write(ROWS)).read_bytes())
    assert rows_of(front.run(form.format(place), upto="ingest")) == ROWS


def test_a_source_outside_the_allowed_roots_is_refused(front: Any, tmp_path: Path) -> None:
    source = front.write(ROWS, "beside/secret.parquet")
    front.write(ROWS, "data/in.parquet")
    allowed = {"ingest__allowed_roots": [f"{tmp_path}/data", f"{tmp_path}/runs", f"{tmp_path}/table"]}
    with pytest.raises(BadSettings, match=r"source.*outside the allowed roots"):
        front.run(source, upto="ingest", **allowed)
    assert rows_of(front.run(f"{tmp_path}/data/in.parquet", upto="ingest", **allowed)) == ROWS


@pytest.mark.parametrize("source", ["data/link.parquet", "data", "data/*", "data/**/*.parquet", "data/out"])
def test_a_link_does_not_lead_out_of_the_allowed_roots(front: Any, tmp_path: Path, source: str) -> None:
    front.write(ROWS, "beside/secret.parquet")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.parquet").symlink_to(tmp_path / "beside" / "secret.parquet")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "beside")
    with pytest.raises(BadSettings, match="outside the allowed roots"):
        front.run(
            f"{tmp_path}/{source}",
            upto="ingest",
            ingest__allowed_roots=[f"{tmp_path}/data", f"{tmp_path}/runs", f"{tmp_path}/table"],
        )


# Columns


def test_columns_are_mapped(front: Any) -> None:
    table = events().rename_columns(["who", "user.item", "rating", "at"])
    mapping = {"who": "USER_ID", "user.item": "ITEM_ID", "rating": "OUTCOME", "at": "TIMESTAMP"}
    store = front.run(front.write(table), upto="ingest", ingest__columns=mapping)
    assert rows_of(store) == ROWS
    assert manifest(store)["columns"] == {column: name for name, column in mapping.items()}


def test_a_mapped_column_is_read_rather_than_its_namesake(front: Any) -> None:
    store = front.run(
        front.write(events(real=["r", "s", "t"])), upto="ingest", ingest__columns={"real": "ITEM_ID"}
    )
    assert snapshot(store)["ITEM_ID"].to_pylist() == ["r", "s", "t"]


def test_only_needed_columns_are_read(front: Any) -> None:
    """A column that nobody asked for may be damaged: it is not looked at."""
    source = front.write(events(other=["o" * 50_000] * 3), compression="none", use_dictionary=False)
    content = Path(source).read_bytes()
    assert content.count(b"o" * 50_000) == 3
    Path(source).write_bytes(content.replace(b"o" * 50_000, b"\xff" * 50_000))
    assert rows_of(front.run(source, upto="ingest")) == ROWS


def test_a_missing_column_is_named_with_its_file_and_the_remedy(front: Any) -> None:
    source = front.write(events().rename_columns(["user_id", "ITEM_ID", "OUTCOME", "TIMESTAMP"]))
    with pytest.raises(BadData) as raised:
        front.run(source, upto="ingest")
    for part in (source, "USER_ID", "ingest.columns", "{'user_id': 'USER_ID'}"):
        assert part in str(raised.value)


def test_all_missing_columns_are_named(front: Any) -> None:
    with pytest.raises(BadData, match=r"ITEM_ID, TIMESTAMP"):
        front.run(front.write(events(ITEM_ID=None, TIMESTAMP=None)), upto="ingest")


def test_the_file_of_many_that_lacks_a_column_is_named(front: Any) -> None:
    front.write(ROWS, "data/a.parquet")
    front.write(events(ITEM_ID=None), "data/b.parquet")
    with pytest.raises(BadData, match=r"data/b\.parquet: missing column ITEM_ID"):
        front.run(f"{front.folder}/data", upto="ingest")


def test_clicks_without_outcome_point_to_the_default(front: Any) -> None:
    with pytest.raises(BadData, match=r"OUTCOME.*ingest\.default_outcome"):
        front.run(front.write(events(OUTCOME=None)), upto="ingest")


def test_clicks_are_served_by_the_default_outcome(front: Any) -> None:
    store = front.run(front.write(events(OUTCOME=None)), upto="ingest", ingest__default_outcome=1)
    assert snapshot(store)["OUTCOME"].to_pylist() == [1.0, 1.0, 1.0]


def test_the_default_outcome_replaces_no_outcome_that_is_there(front: Any) -> None:
    front.write(ROWS, "data/a.parquet")
    front.write(events(OUTCOME=None), "data/b.parquet")
    store = front.run(f"{front.folder}/data", upto="ingest", ingest__default_outcome=7)
    assert snapshot(store)["OUTCOME"].to_pylist() == [row[2] for row in ROWS] + [7.0] * 3


def test_the_default_outcome_hides_no_misspelt_mapping(front: Any) -> None:
    with pytest.raises(BadData, match="missing column ratng"):
        front.run(
            front.write(events()),
            upto="ingest",
            ingest__default_outcome=1,
            ingest__columns={"ratng": "OUTCOME"},
        )


@pytest.mark.parametrize(
    ("mapping", "said"),
    [({"a": "USER"}, "USER"), ({"a": "USER_ID", "b": "USER_ID"}, "more than one column to USER_ID")],
)
def test_a_mapping_that_makes_no_sense_is_a_bad_setting(front: Any, mapping: Any, said: str) -> None:
    with pytest.raises(BadSettings, match=f"ingest.columns.*{said}"):
        front.run(front.write(ROWS), upto="ingest", ingest__columns=mapping)


def test_a_column_that_is_there_twice_is_named(front: Any) -> None:
    table = pa.Table.from_arrays([*events().columns, pa.array(["a", "b", "c"])], [*COLUMNS, "USER_ID"])
    with pytest.raises(BadData, match="more than one column USER_ID"):
        front.run(front.write(table), upto="ingest")


# Ids and outcomes


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
)
def test_text_is_text_however_it_is_kept(front: Any, kind: pa.DataType) -> None:
    values = pa.array(["ann", "bob", "ann"])
    cast = values.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else values.cast(kind)
    assert rows_of(front.run(front.write(events(USER_ID=cast)), upto="ingest")) == ROWS


@pytest.mark.parametrize(
    "kind",
    [pa.float32(), pa.int8(), pa.uint64(), pa.decimal128(5, 1), pa.dictionary(pa.int8(), pa.float64())],
)
def test_numbers_are_outcomes_however_they_are_kept(front: Any, kind: pa.DataType) -> None:
    values = pa.array([1.0, 4.0, 3.0])
    cast = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    store = front.run(front.write(events(OUTCOME=cast)), upto="ingest")
    assert snapshot(store)["OUTCOME"].to_pylist() == [1.0, 4.0, 3.0]
    assert snapshot(store)["OUTCOME"].type == pa.float64()


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_outcomes_that_are_no_numbers_come_to_validate_however_they_are_kept(front: Any, kind: Any) -> None:
    outcomes = pa.array(["a", None, "b"]).cast(kind)
    with pytest.raises(BadData, match="OUTCOME"):
        front.run(front.write(events(OUTCOME=outcomes)), upto="validate")


ODD_IDS = [
    "plain", "it's", 'say "hi"', "a,b", "line\nbreak", "\r\n\t", "🙂", "👩‍👩‍👧‍👦", "é",
    "e\u0301", " ", " x ", "x\1y",
    "\1",
    "x" * 10_000, "NULL", "None", "nan", "0", "007", "-1", "1e5", "\\", "%s", "$1", ";--", "../..",
    "\ufeff", "\u202e",
]  # fmt: skip


def test_odd_ids_come_out_as_they_went_in(front: Any) -> None:
    rows = [(user, item, 1.0, T + i) for user in ODD_IDS for i, item in enumerate(reversed(ODD_IDS))]
    store = front.run(front.write(rows))
    assert rows_of(store) == rows
    users = pq.read_table(store.folder("split") / contents.USERS)["USER_ID"].to_pylist()
    items = contents.item_ids(store)
    assert sorted(users) == sorted(items) == sorted(ODD_IDS)
    found = contents.interactions(store, store.settings())
    starts, ends = found.events.starts, found.events.ends
    for user, start, end in zip(users, starts, ends, strict=True):
        assert [items[item - 1] for item in found.events.items[start:end]] == list(reversed(ODD_IDS)), user


def test_text_that_is_not_utf8_is_named(front: Any) -> None:
    buffers = pa.array([b"\xff\xfe", b"y", b"z"]).buffers()
    broken = pa.Array.from_buffers(pa.string(), 3, buffers)
    with pytest.raises(BadData, match=r"source\.parquet: ITEM_ID: .*UTF"):
        front.run(front.write(events(ITEM_ID=broken)), upto="ingest")


# Times


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("how", ["auto", "named", "naive", "utc", "zoned"])
def test_times_of_any_unit_are_whole_units_since_1970(front: Any, unit: str, how: str) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ticks = pa.array([T * scale, (T + 1) * scale, (T + 2) * scale])
    zone = {"utc": "UTC", "zoned": "America/New_York"}.get(how)
    times = ticks if how in ("auto", "named") else ticks.cast(pa.timestamp(unit, zone))
    settings = {"ingest__timestamp_unit": unit} if how == "named" else {}
    # parquet has no seconds: what is written as such comes back as milliseconds
    store = front.run(front.write(events(TIMESTAMP=times)), upto="ingest", **settings)
    kept = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[manifest(store)["timestamp_unit"]]
    assert [time / kept for time in snapshot(store)["TIMESTAMP"].to_pylist()] == [T, T + 1, T + 2]
    if how in ("auto", "named"):
        assert manifest(store)["timestamp_unit"] == unit


def test_days_are_their_first_second(front: Any) -> None:
    days = pa.array([date(2024, 1, 1), date(1970, 1, 2), None])
    store = front.run(front.write(events(TIMESTAMP=days)), upto="ingest")
    assert snapshot(store)["TIMESTAMP"].to_pylist() == [1_704_067_200, 86_400, None]


def test_files_of_several_date_time_units_are_kept_in_the_finest(front: Any) -> None:
    whole = pa.array([T, T, T]).cast(pa.timestamp("s"))
    front.write(events(TIMESTAMP=whole.cast(pa.timestamp("ms"))), "data/a.parquet")
    front.write(events(TIMESTAMP=pa.array([T * 10**6 + 1] * 3, pa.timestamp("us", "UTC"))), "data/b.parquet")
    store = front.run(f"{front.folder}/data", upto="ingest")
    assert manifest(store)["timestamp_unit"] == "us"
    assert snapshot(store)["TIMESTAMP"].to_pylist() == [T * 10**6] * 3 + [T * 10**6 + 1] * 3


@pytest.mark.parametrize("other", [pa.array([T * 1000] * 3), pa.array([T * 1000] * 3, pa.timestamp("ms"))])
def test_files_of_mixed_units_are_refused_and_named(front: Any, other: pa.Array) -> None:
    front.write(ROWS, "data/a.parquet")
    front.write(events(TIMESTAMP=other), "data/b.parquet")
    with pytest.raises(BadData, match=r"ingest\.timestamp_unit") as raised:
        front.run(f"{front.folder}/data", upto="ingest")
    assert "a.parquet" in str(raised.value)
    assert "b.parquet" in str(raised.value)


def test_a_named_unit_settles_what_looks_mixed(front: Any) -> None:
    front.write(ROWS, "data/a.parquet")
    front.write([("a", "b", 1.0, T * 1000)], "data/b.parquet")
    store = front.run(f"{front.folder}/data", upto="ingest", ingest__timestamp_unit="ms")
    assert len(rows_of(store)) == 4


@pytest.mark.parametrize("times", [pa.array(["2024-01-01"] * 3), pa.array([1.5, 2.5, 3.5])])
def test_what_is_no_time_is_left_for_validate_to_name(front: Any, times: pa.Array) -> None:
    with pytest.raises(BadData, match=r"column TIMESTAMP is (string|double), must be int"):
        front.run(front.write(events(TIMESTAMP=times)), upto="validate")


def test_files_of_different_types_are_refused_and_named(front: Any) -> None:
    front.write(ROWS, "data/a.parquet")
    front.write(events(USER_ID=[1, 2, 3]), "data/b.parquet")
    with pytest.raises(BadData, match=r"b\.parquet: USER_ID is int64, but string in .*a\.parquet"):
        front.run(f"{front.folder}/data", upto="ingest")


# as_of


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_an_event_at_as_of_is_not_read_and_one_just_before_is(front: Any, unit: str) -> None:
    as_of = datetime(2024, 5, 1, 12, 30, 15, tzinfo=timezone(timedelta(hours=2)))
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    at = int(as_of.timestamp()) * scale
    store = front.run(
        front.write(events(TIMESTAMP=[at, at - 1, at + 1])), upto="ingest", as_of=as_of.isoformat()
    )
    assert snapshot(store)["TIMESTAMP"].to_pylist() == [at - 1]
    assert manifest(store)["rows_at_or_after_as_of"] == 2
    assert datetime.fromisoformat(manifest(store)["as_of"]) == as_of


def test_as_of_within_a_second_keeps_that_seconds_event(front: Any) -> None:
    """An event of second s happened at s, which is before s + 0.5."""
    as_of = datetime.fromtimestamp(T, UTC) + timedelta(seconds=0.5)
    store = front.run(
        front.write(events(TIMESTAMP=[T, T + 1, T - 1])), upto="ingest", as_of=as_of.isoformat()
    )
    assert snapshot(store)["TIMESTAMP"].to_pylist() == [T, T - 1]


def test_rows_without_a_time_stay_for_validate_to_reject(front: Any) -> None:
    store = front.run(front.write(events(TIMESTAMP=[T, None, -5])), upto="ingest")
    assert snapshot(store)["TIMESTAMP"].to_pylist() == [T, None, -5]


def test_nothing_before_as_of_names_as_of_and_the_unit(front: Any) -> None:
    with pytest.raises(BadData, match=r"all 3 rows are at or after as_of \(2020.*timestamp_unit"):
        front.run(front.write(ROWS), upto="ingest", as_of="2020-01-01")


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    times=st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=20),
    cut=st.integers(1, 4_000_000_000),
    per_file=st.integers(1, 20),
)
def test_exactly_what_was_before_as_of_is_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, front_at: Any, times: list[int], cut: int, per_file: int
) -> None:
    front = front_at(tmp_path_factory.mktemp("times"))
    rows = [(f"u{i}", f"i{i}", 1.0, time) for i, time in enumerate(times)]
    for first in range(0, len(rows), per_file):
        front.write(rows[first : first + per_file], f"data/{first:02d}.parquet", row_group_size=2)
    before = [row for row in rows if row[3] < cut]
    settings = {"as_of": datetime.fromtimestamp(cut, UTC).isoformat(), "ingest__timestamp_unit": "s"}
    if not before:
        with pytest.raises(BadData, match="as_of"):
            front.run(f"{front.folder}/data", upto="ingest", **settings)
        return
    store = front.run(f"{front.folder}/data", upto="ingest", **settings)
    assert rows_of(store) == before


# Manifest and re-running


def test_the_manifest_tells_files_sizes_and_rows(front: Any) -> None:
    first = front.write(ROWS, "data/a.parquet")
    second = front.write([("c", "x", 1.0, T + 10**8), ("c", "y", 1.0, T)], "data/b.parquet")
    store = front.run(f"{front.folder}/data", upto="ingest", as_of="2024-01-01")
    found = manifest(store)
    assert found["source"] == f"{front.folder}/data"
    assert found["rows"] == 4
    assert [
        {
            "file": entry["file"],
            "bytes": entry["bytes"],
            "rows_read": entry["rows_read"],
            "rows": entry["rows"],
        }
        for entry in found["files"]
    ] == [
        {"file": first, "bytes": Path(first).stat().st_size, "rows_read": 3, "rows": 3},
        {"file": second, "bytes": Path(second).stat().st_size, "rows_read": 2, "rows": 1},
    ]
    marker = store.marker("ingest")
    assert marker is not None
    assert marker.summary == {
        "files": 2,
        "rows": 4,
        "rows_at_or_after_as_of": 1,
        "rows_before_lookback": 0,
        "cut_by": "event time",
        "timestamp_unit": "s",
    }


def test_the_snapshot_stays_while_nothing_changes_and_follows_the_source_when_it_does(front: Any) -> None:
    source = front.write(ROWS)
    first = front.run(source, upto="ingest").marker("ingest")
    assert front.run(source, upto="ingest").marker("ingest") == first
    assert front.run(source, upto="ingest", train__epochs=3).marker("ingest") == first
    front.write([*ROWS, ("new", "row", 1.0, T)])
    assert len(rows_of(front.run(source, upto="ingest"))) == 4
    assert len(rows_of(front.run(source, upto="ingest", as_of="2023-11-14T22:13:21Z"))) == 2


def test_the_rest_of_a_run_does_not_need_the_source(front: Any) -> None:
    rows = [(f"u{i % 2}", f"i{i}", 1.0, T + i) for i in range(8)]
    source = front.write(rows)
    front.run(source, upto="ingest")
    Path(source).unlink()
    store = RunStore.of(front.store, "run")
    from sasrec_tasks.pipeline import run_task

    run_task("validate", store.uri)
    assert run_task("split", store.uri)["events"] == 8


# What can't be read


@pytest.mark.parametrize("kept", [0, 3, 4, 100, -1, -8, -100])
def test_a_truncated_file_is_named(front: Any, kept: int) -> None:
    source = front.write(ROWS * 100)
    Path(source).write_bytes(Path(source).read_bytes()[:kept])
    with pytest.raises(BadData, match=r"source\.parquet: can't be read as parquet"):
        front.run(source, upto="ingest")


def test_text_in_place_of_parquet_is_named(front: Any) -> None:
    (front.folder / "x.parquet").write_text("USER_ID,ITEM_ID,OUTCOME,TIMESTAMP\n1,2,3,4\n" * 100)
    with pytest.raises(BadData, match=r"x\.parquet: can't be read as parquet"):
        front.run(f"{front.folder}/x.parquet", upto="ingest")


def test_the_damaged_file_of_many_is_named(front: Any) -> None:
    front.write(ROWS, "data/a.parquet")
    (front.folder / "data" / "b.parquet").write_bytes(b"")
    with pytest.raises(BadData, match=r"data/b\.parquet: can't be read as parquet, it is empty"):
        front.run(f"{front.folder}/data", upto="ingest")


def test_pages_that_are_damaged_in_the_middle_are_named(front: Any) -> None:
    source = front.write([(f"u{i}", f"i{i}", 1.0, T) for i in range(5000)], compression="zstd")
    content = bytearray(Path(source).read_bytes())
    content[100:2000] = b"\xff" * 1900
    Path(source).write_bytes(bytes(content))
    with pytest.raises(BadData, match=r"source\.parquet: can't be read as parquet"):
        front.run(source, upto="ingest")


def test_a_damaged_file_elsewhere_is_named(front: Any) -> None:
    place = f"memory://{uuid.uuid4().hex}/a.parquet"
    with fsspec.open(place, "wb") as file:
        file.write(b"PAR1 not quite PAR1")
    with pytest.raises((BadData, OSError), match=r"a\.parquet: can't be read"):
        front.run(place, upto="ingest")


def test_no_rows_are_nothing_to_learn_from(front: Any) -> None:
    with pytest.raises(BadData, match="no rows"):
        front.run(front.write([]), upto="ingest")


def test_a_file_without_rows_among_others_does_no_harm(front: Any) -> None:
    front.write([], "data/a.parquet")
    front.write(ROWS, "data/b.parquet")
    assert rows_of(front.run(f"{front.folder}/data", upto="ingest")) == ROWS


def test_a_failed_ingest_leaves_nothing_that_counts(front: Any) -> None:
    source = front.write(ROWS)
    Path(source).write_bytes(b"")
    with pytest.raises(BadData):
        front.run(source, upto="ingest")
    run = Path(front.store) / "run"
    assert RunStore(str(run)).marker("ingest") is None
    assert not list(run.rglob("*.parquet"))


# Size

PEAK = """
import sys
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import run_task, start
settings = from_names({"source": sys.argv[1], "store": sys.argv[2], "table": "-", "as_of": "2026-01-01"})
store = start(settings, sys.argv[3])
run_task("ingest", store.uri)
run_task("validate", store.uri)
lines = open("/proc/self/status").read().splitlines()  # ru_maxrss would start at this process's own
print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))
"""


def peak_mib(source: str, store: str, run_id: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, source, store, run_id],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_the_file(front: Any) -> None:
    """Three times the rows, all in one row group: as much memory, within a margin below the file's size."""
    random = np.random.default_rng(0)
    peaks, sizes = [], []
    for millions in (1.5, 4.5):
        rows = int(millions * 1e6)
        table = pa.table(
            {
                "USER_ID": pa.array(random.integers(0, 2**62, rows)).cast(pa.string()),
                "ITEM_ID": pa.array(random.integers(0, 5000, rows)).cast(pa.string()),
                "OUTCOME": random.random(rows),
                "TIMESTAMP": random.integers(T - 10**8, T, rows),
            }
        )
        source = front.write(table, f"{rows}.parquet", row_group_size=rows, compression="none")
        sizes.append(Path(source).stat().st_size >> 20)
        # (what an allocator has not given back yet comes and goes: the least of three is the need)
        peaks.append(min(peak_mib(source, front.store, f"r{rows}.{number}") for number in range(3)))
    grown, more = peaks[1] - peaks[0], sizes[1] - sizes[0]
    assert more > 80
    assert grown < 0.5 * more, (peaks, sizes)


# Real data


@pytest.mark.parametrize(("name", "users", "items"), [("ml-100k", 943, 1682)])
def test_movielens(front: Any, name: str, users: int, items: int) -> None:
    repository = Path(__file__).parent.parent
    places = [folder / "shared" / "data" / f"{name}.parquet" for folder in (repository, repository.parent)]
    source = next((str(place) for place in places if place.exists()), "")
    if not source:  # the same counts, made
        rows = [(str(i % users), str(i % items), 1.0, T + i) for i in range(users * items // 20)]
        source = front.write(rows)
    store = front.run(source)
    marker = store.marker("split")
    assert marker is not None
    table = pq.read_table(source)
    assert json.loads(json.dumps(marker.summary))["events"] == len(table)
    assert (marker.summary["users"], marker.summary["items"]) == (users, items)
