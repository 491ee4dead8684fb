"""The order of events, and what of it is trained on, held against a reference in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.api.histories import checked, histories, histories_with_validation, validation_part
from sasrec_tasks.api.vocabulary import Vocabulary
from sasrec_tasks.sasrec.sequences import Sequences

Table = Callable[[list[Any]], pd.DataFrame]
Event = tuple[str, str, float, int]

KNOWN = Vocabulary(pd.Series(["a", "b", "c"]))
event = st.tuples(
    st.sampled_from(["u", "v", "w"]), st.sampled_from("abcx"), st.sampled_from([0.5, 1.0]), st.integers(0, 4)
)


def read(sequences: Sequences) -> list[list[str]]:
    return [
        KNOWN.names(sequences.items[start:end].astype(np.int64)).tolist()
        for start, end in zip(sequences.starts, sequences.ends, strict=True)
    ]


def key(row: Event) -> tuple[str, str, int]:
    return row[0], row[1], row[3]


def by_user(rows: list[Event]) -> dict[str, list[Event]]:
    """In order of time, ties as they came (Python's sort is stable)."""
    users = sorted({row[0] for row in rows})
    return {user: sorted((row for row in rows if row[0] == user), key=lambda row: row[3]) for user in users}


@given(rows=st.lists(event, min_size=1, max_size=20))
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore:.*rows are skipped")
def test_histories_are_in_order_of_time_and_ties_keep_the_order_of_rows(
    table: Table, rows: list[Event]
) -> None:
    found = histories(table(rows), KNOWN, "t")
    expected = by_user(rows)
    assert found.users.tolist() == list(expected)
    assert (
        read(found.sequences)
        == read(found.train)
        == [[item for _, item, _, _ in events if item != "x"] for events in expected.values()]
    )
    outcomes = [outcome for events in expected.values() for _, item, outcome, _ in events if item != "x"]
    assert found.sequences.outcomes.tolist() == outcomes


@given(
    rows=st.lists(event, min_size=1, max_size=20),
    validation=st.lists(event, min_size=1, max_size=5),
    data=st.data(),
)
@settings(deadline=None, max_examples=100)
@pytest.mark.filterwarnings("ignore:.*rows are skipped", "ignore:.*left out")
def test_a_validation_event_and_what_follows_is_never_trained_on(
    table: Table, rows: list[Event], validation: list[Event], data: st.DataObject
) -> None:
    validation += data.draw(st.lists(st.sampled_from(rows), max_size=3))  # some stand in both tables
    found = histories_with_validation(table(rows), table(validation), KNOWN, "t", "v")

    held = {key(row) for row in validation}
    in_both = {key(row) for row in rows}
    alone = [row for row in validation if key(row) not in in_both]
    outcomes = {key(row): row[2] for row in reversed(validation) if key(row) in in_both}  # the first's counts
    trained, targets = [], []
    for events in by_user([*rows, *alone]).values():
        first = next((place for place, row in enumerate(events) if key(row) in held), len(events))
        trained.append([row[1] for row in events[:first] if row[1] != "x"])
        known = [row for row in events if row[1] != "x"]
        targets += [
            ([row[1] for row in known[:place]], row[1], outcomes.get(key(row), row[2]))
            for place, row in enumerate(known)
            if place and key(row) in held
        ]
    assert read(found.train) == trained
    part = validation_part(found)
    assert list(zip(read(part.history), KNOWN.names(part.targets), part.outcomes, strict=True)) == targets


def test_what_follows_a_validation_event_of_an_unknown_item_is_not_trained_on_either(table: Table) -> None:
    rows = [("u", "a", 1.0, 1), ("u", "b", 1.0, 2), ("u", "x", 1.0, 3), ("u", "c", 1.0, 4)]
    with pytest.warns(UserWarning, match="1 of 4 rows are skipped"):
        found = histories_with_validation(table(rows), table(rows[2:3]), KNOWN, "t", "v")
    assert read(found.train) == [["a", "b"]]
    assert read(found.sequences) == [["a", "b", "c"]]


@pytest.mark.parametrize("factor", [1000, 1_000_000])
def test_times_in_another_unit_are_refused(table: Table, factor: int) -> None:
    rows = [("u", item, 1.0, 1_700_000_000 + time) for time, item in enumerate("abc")]
    other = [(user, item, outcome, time * factor) for user, item, outcome, time in rows[2:]]
    with pytest.raises(
        ValueError, match=r"around 1\.7e\+09 in t and around 1\.7e\+1[25] in v: .*make the units"
    ):
        histories_with_validation(table(rows), table(other), KNOWN, "t", "v")
    with pytest.raises(ValueError, match="make the units the same"):
        histories_with_validation(table(other), table(rows), KNOWN, "t", "v")


def test_dates_are_moments(table: Table) -> None:
    days = [date(2026, 1, day) for day in (3, 1, 2)]
    frame = table([("u", item, 1.0, 0) for item in "abc"]).assign(TIMESTAMP=days)
    assert read(histories(frame, KNOWN, "t").sequences) == [["b", "c", "a"]]
    moments = frame.assign(TIMESTAMP=[datetime(2026, 1, day, 12) for day in (3, 1, 2)]).astype(
        {"TIMESTAMP": object}
    )
    assert read(histories(moments, KNOWN, "t").sequences) == [["b", "c", "a"]]


def test_events_of_unknown_items_are_skipped_with_a_count(table: Table) -> None:
    rows = [("u", item, 1.0, time) for time, item in enumerate("axbyx")]
    with pytest.warns(UserWarning, match=r"some\.csv: 3 of 5 rows are skipped, the model does not know"):
        found = histories(table(rows), KNOWN, "some.csv")
    assert read(found.sequences) == [["a", "b"]]


def test_validation_events_that_nothing_precedes_are_left_out_with_a_count(table: Table) -> None:
    rows = [("u", "a", 1.0, 1), ("u", "b", 1.0, 2), ("v", "a", 1.0, 1)]
    found = histories_with_validation(table(rows), table(rows[1:]), KNOWN, "t", "v")
    with pytest.warns(UserWarning, match="1 of 2 validation interactions are left out"):
        part = validation_part(found)
    assert KNOWN.names(part.targets).tolist() == ["b"]


@pytest.mark.parametrize(
    ("here", "there"),
    [(int, float), (int, str), (float, int), ("int32", "uint64")],
)
def test_an_event_is_found_in_both_tables_whatever_the_width_of_its_types(
    table: Table, here: Any, there: Any
) -> None:
    rows = [(7, item, 1.0, time) for time, item in enumerate("abc")]
    frame, validation = table(rows), table(rows[1:2])
    column = "USER_ID" if there is str else "TIMESTAMP"
    found = histories_with_validation(
        frame.astype({column: here}), validation.astype({column: there}), KNOWN, "t", "v"
    )
    assert read(found.train) == [["a"]]
    assert read(found.sequences) == [["a", "b", "c"]]


def test_moments_sort_as_numbers_do(table: Table) -> None:
    rows = [("u", "a", 1.0, 3), ("u", "b", 1.0, 1), ("u", "c", 1.0, 2)]
    numbers = table(rows)
    for unit in ("s", "us", "ns"):
        for zone in (None, "Asia/Tokyo"):
            moments = numbers.assign(
                TIMESTAMP=pd.to_datetime(numbers["TIMESTAMP"], unit="D").dt.as_unit(unit).dt.tz_localize(zone)
            )
            assert read(histories(moments, KNOWN, "t").sequences) == [["b", "c", "a"]]


@pytest.mark.parametrize("backend", ["pyarrow", "numpy_nullable"])
@pytest.mark.parametrize("times", [[3, 1, 2], [3.5, 1.5, 2.0], pd.to_datetime([3, 1, 2])])
def test_tables_of_every_backend_are_read_the_same(table: Table, backend: Any, times: Any) -> None:
    numbers = table([("u", "a", 0.5, 0), ("u", "b", 1.0, 0), ("u", "c", 1.0, 0)]).assign(TIMESTAMP=times)
    typed = numbers.convert_dtypes(dtype_backend=backend)
    pd.testing.assert_frame_equal(checked(typed, "t"), checked(numbers, "t"))
    found = histories_with_validation(typed, numbers[2:3], KNOWN, "t", "v")
    assert read(found.sequences) == [["b", "c", "a"]]
    assert read(found.train) == [["b"]]


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.float32(), pa.decimal128(20, 1), pa.date32()])
def test_times_of_every_type_of_pyarrow_sort_as_numbers_do(table: Table, kind: pa.DataType) -> None:
    times = pd.Series(pd.arrays.ArrowExtensionArray(pa.array([3, 1, 2], pa.int32()).cast(kind)))
    rows = table([("u", item, 1.0, 0) for item in "abc"]).assign(TIMESTAMP=times)
    assert read(histories(rows, KNOWN, "t").sequences) == [["b", "c", "a"]]


@pytest.mark.parametrize("kind", ["uint64", "UInt64", pd.ArrowDtype(pa.uint64())])
def test_times_that_int64_does_not_hold_are_refused(table: Table, kind: Any) -> None:
    rows = table([("u", item, 1.0, 0) for item in "ab"])
    highest = rows.assign(TIMESTAMP=pd.Series([1, 2**63 - 1], dtype="uint64").astype(kind))
    assert read(histories(highest, KNOWN, "t").sequences) == [["a", "b"]]
    above = rows.assign(TIMESTAMP=pd.Series([1, 2**63], dtype="uint64").astype(kind))
    with pytest.raises(
        ValueError, match=r"t\.csv: TIMESTAMP: 9223372036854775808 in row 1 is not below 2\^63"
    ):
        histories(above, KNOWN, "t.csv")


def test_whole_floats_that_int64_does_not_hold_sort_too(table: Table) -> None:
    rows = [("u", "a", 1.0, 1e300), ("u", "b", 1.0, -1e300), ("u", "c", 1.0, 0.0)]
    assert read(histories(table(rows), KNOWN, "t").sequences) == [["b", "c", "a"]]


def test_moments_in_one_table_and_numbers_in_the_other_are_refused(table: Table) -> None:
    numbers = table([("u", "a", 1.0, 1), ("u", "b", 1.0, 2)])
    moments = numbers.assign(TIMESTAMP=pd.to_datetime(numbers["TIMESTAMP"]))
    with pytest.raises(ValueError, match=r"TIMESTAMP is of one type in t\.csv and of another in v\.csv"):
        histories_with_validation(numbers, moments, KNOWN, "t.csv", "v.csv")


def test_whatever_index_a_table_has_its_rows_stay_together(table: Table) -> None:
    part = table([("u", "a", 0.5, 2), ("u", "b", 1.0, 1)])
    twice = pd.concat([part, part.assign(USER_ID="v")])  # index 0, 1, 0, 1
    found = histories(twice, KNOWN, "t")
    assert read(found.sequences) == [["b", "a"], ["b", "a"]]
    assert found.sequences.outcomes.tolist() == [1.0, 0.5] * 2
    assert twice.columns.tolist() == part.columns.tolist()


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("USER_ID", ["u", None], r"USER_ID: 1 of 2 values are missing, the first in row 1"),
        ("ITEM_ID", [None, "a"], r"ITEM_ID: 1 of 2 values are missing, the first in row 0"),
        ("TIMESTAMP", [1, np.nan], r"TIMESTAMP: 1 of 2 values are missing, the first in row 1"),
        (
            "TIMESTAMP",
            pd.arrays.ArrowExtensionArray(pa.array([1.5, float("nan")])),
            "TIMESTAMP: 1 of 2 .* row 1",
        ),
        ("TIMESTAMP", ["1", "noon"], r"TIMESTAMP: .*'noon' in row 1.*pandas\.to_datetime"),
        ("TIMESTAMP", [True, False], r"TIMESTAMP: values are bool"),
        ("OUTCOME", ["1", "good"], r"OUTCOME: 1 of 2 .*row 1 \('good'\)"),
        ("OUTCOME", [np.nan, 1.0], r"OUTCOME: 1 of 2 .*row 0 \(nan\)"),
        ("OUTCOME", [np.inf, -np.inf], r"OUTCOME: 2 of 2 .*row 0 \(inf\)"),
        ("OUTCOME", [1.0, 1e300], r"OUTCOME: 1 of 2 .*row 1 \(1e\+300\)"),
    ],
)
def test_a_value_that_can_not_be_used_is_told_with_file_column_and_row(
    table: Table, column: str, values: list[Any], said: str
) -> None:
    frame = table([("u", "a", 1.0, 1), ("u", "b", 1.0, 2)]).assign(**{column: values})
    with pytest.raises(ValueError, match=rf"some\.csv: {said}"):
        histories(frame, KNOWN, "some.csv")


def test_an_empty_table_is_refused_by_name(table: Table) -> None:
    with pytest.raises(ValueError, match=r"some\.csv: no rows"):
        histories(table([]), KNOWN, "some.csv")
