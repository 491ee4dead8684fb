"""Columns that are not those of the contract, and types that are not its."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from hostile.case import Case, Given, Place, Served, bad_data, bad_settings
from hostile.data import COLUMNS, T, column, rows, table

COUNT = len(rows())
AS_IT_IS = Served("as the plain data")


def _file(events: Callable[[], pa.Table], **settings: Any) -> Callable[[Place], Given]:
    """A source of one file."""

    def make(place: Place) -> Given:
        place.write(events())
        return {name.replace("__", "."): value for name, value in settings.items()}

    return make


def _files(
    first: Callable[[], pa.Table], second: Callable[[], pa.Table], **settings: Any
) -> Callable[[Place], Given]:
    """A source of two files, each with half of the rows."""

    def make(place: Place) -> Given:
        half = COUNT // 2
        place.write(first().slice(0, half), "data/a.parquet")
        place.write(second().slice(half), "data/b.parquet")
        return {"source": f"{place.folder}/data"} | {n.replace("__", "."): v for n, v in settings.items()}

    return make


def _with(name: str, values: Callable[[], Any], **settings: Any) -> Callable[[Place], Given]:
    """The plain data with another column in the place of one."""
    return _file(lambda: table(**{name: values()}), **settings)


def _wrong(what: str, name: str, values: Callable[[], Any], kind: str, must: str, remedy: str) -> Case:
    return Case(
        what=what,
        make=_with(name, values),
        gets=bad_data(f"FILE: column {name} is {kind}, must be {must}: {remedy}", "validate"),
    )


def _of(kind: pa.DataType, name: str) -> Callable[[], pa.Array]:
    return lambda: column(name).cast(kind)


def _seconds(kind: pa.DataType) -> Callable[[], pa.Array]:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    return lambda: pa.array([row[3] * scale for row in rows()], pa.int64()).cast(kind)


def _ids(name: str) -> Callable[[], pa.Array]:
    return lambda: pa.array([int(text[-2:]) for text in column(name).to_pylist()])


def _numbered(found: Any) -> None:
    assert found.users == {str(number) for number in range(20)}


CONVERT = "convert it in the source"
CAST = "set ingest.cast_ids=true to take integers as text"


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _columns()
    yield from _ids_of_types()
    yield from _outcomes_of_types()
    yield from _times_of_types()
    yield from _files_that_differ()


def _columns() -> Iterator[Case]:
    for name in ("USER_ID", "ITEM_ID", "TIMESTAMP"):
        yield Case(
            what=f"no column {name}",
            make=_file(lambda name=name: table(**{name: None})),  # type: ignore[misc]
            gets=bad_data(f"FILE: missing column {name}: it has … name them with ingest.columns", "ingest"),
        )
    yield Case(
        what="no column OUTCOME",
        make=_file(lambda: table(OUTCOME=None)),
        gets=bad_data(
            "FILE: missing column OUTCOME: … for a source without OUTCOME (clicks) set ingest.default_outcome=1",
            "ingest",
        ),
    )
    yield Case(
        what="no column OUTCOME, with `ingest.default_outcome`",
        make=_file(lambda: table(OUTCOME=None), ingest__default_outcome=1),
        gets=Served("each event with that outcome"),
    )
    yield Case(
        what="no columns at all",
        make=_file(lambda: table().select([])),
        gets=bad_data(
            "FILE: missing column USER_ID, ITEM_ID, OUTCOME, TIMESTAMP: it has no columns", "ingest"
        ),
    )
    yield Case(
        what="a column more",
        make=_file(lambda: table(COUNTRY=pa.array(["de"] * COUNT))),
        gets=Served("without that column"),
    )
    yield Case(
        what="a nested column more",
        make=_file(lambda: table(MORE=pa.array([{"a": [{"b": 1}]}] * COUNT))),
        gets=Served("without that column"),
    )
    yield Case(
        what="1,000 columns more",
        make=_file(lambda: table(**{f"c{n}": pa.nulls(COUNT) for n in range(1000)})),
        gets=Served("without those columns"),
    )
    yield Case(
        what="columns in another order",
        make=_file(lambda: table().select(list(reversed(COLUMNS)))),
        gets=AS_IT_IS,
    )
    yield Case(
        what="a column in small letters",
        make=_file(lambda: table().rename_columns(["user_id", *COLUMNS[1:]])),
        gets=bad_data("FILE: missing column USER_ID: … for instance {'user_id': 'USER_ID'}", "ingest"),
    )
    yield Case(
        what="a column with a space behind its name",
        make=_file(lambda: table().rename_columns(["USER_ID ", *COLUMNS[1:]])),
        gets=bad_data("FILE: missing column USER_ID: it has USER_ID , ITEM_ID", "ingest"),
    )
    yield Case(
        what="columns of other names, with `ingest.columns`",
        make=_file(
            lambda: table().rename_columns(["who", "a.b c'\"; --", "<b>", "🕐"]),
            ingest__columns={
                "who": "USER_ID",
                "a.b c'\"; --": "ITEM_ID",
                "<b>": "OUTCOME",
                "🕐": "TIMESTAMP",
            },
        ),
        gets=AS_IT_IS,
    )
    yield Case(
        what="`ingest.columns` names a column that is not there",
        make=_file(table, ingest__columns={"who": "USER_ID"}),
        gets=bad_data("FILE: missing column who: it has USER_ID, ITEM_ID", "ingest"),
    )
    yield Case(
        what="`ingest.columns` maps to an unknown column",
        make=_file(table, ingest__columns={"USER_ID": "USER"}),
        gets=bad_settings(
            "ingest.columns: maps to USER: the columns are USER_ID, ITEM_ID, OUTCOME, TIMESTAMP", "ingest"
        ),
    )
    yield Case(
        what="`ingest.columns` maps two columns to one",
        make=_file(table, ingest__columns={"a": "USER_ID", "b": "USER_ID"}),
        gets=bad_settings("ingest.columns: maps more than one column to USER_ID", "ingest"),
    )
    yield Case(
        what="a column twice",
        make=_file(
            lambda: pa.Table.from_arrays([*table().columns, column("USER_ID")], [*COLUMNS, "USER_ID"])
        ),
        gets=bad_data("FILE: more than one column USER_ID: rename or drop one of them", "ingest"),
    )
    yield Case(
        what="another column twice",
        make=_file(
            lambda: pa.Table.from_arrays([*table().columns, *[column("USER_ID")] * 2], [*COLUMNS, "x", "x"])
        ),
        gets=Served("without those columns"),
    )


def _ids_of_types() -> Iterator[Case]:
    string = "USER_ID"
    yield _wrong("USER_ID of int64", string, _ids(string), "int64", "str", CAST)
    yield _wrong(
        "ITEM_ID of uint8", "ITEM_ID", lambda: _ids("ITEM_ID")().cast(pa.uint8()), "uint8", "str", CAST
    )
    yield _wrong("a categorical of integers as USER_ID", string, lambda: _ids(string)().dictionary_encode(), "int64",
                 "str", CAST)  # fmt: skip
    yield _wrong(
        "USER_ID of double", string, lambda: _ids(string)().cast(pa.float64()), "double", "str", CONVERT
    )
    yield _wrong("USER_ID of decimal", string, lambda: _ids(string)().cast(pa.decimal128(21, 0)), "decimal128(21, 0)",
                 "str", CONVERT)  # fmt: skip
    yield _wrong("USER_ID of binary", string, _of(pa.binary(), string), "binary", "str", CONVERT)
    yield _wrong("USER_ID of fixed-size binary (UUIDs as 16 bytes)", string,
                 lambda: pa.array([bytes([n % 20]) * 16 for n in range(COUNT)], pa.binary(16)),
                 "fixed_size_binary[16]", "str", CONVERT)  # fmt: skip
    yield _wrong("USER_ID of bool", string, lambda: pa.array([True] * COUNT), "bool", "str", CONVERT)
    yield _wrong("USER_ID a list", string, lambda: pa.array([[text] for text in column(string).to_pylist()]),
                 "list<element: string>", "str", CONVERT)  # fmt: skip
    yield _wrong("USER_ID a struct", string, lambda: pa.array([{"id": t} for t in column(string).to_pylist()]),
                 "struct<id: string>", "str", CONVERT)  # fmt: skip
    yield _wrong("USER_ID a map", string,
                 lambda: pa.array([[("id", t)] for t in column(string).to_pylist()], pa.map_(pa.string(), pa.string())),
                 "map<string, string…>", "str", CONVERT)  # fmt: skip
    yield _wrong("USER_ID a date", string, lambda: pa.array([19_000] * COUNT, pa.date32()), "date32[day]", "str",
                 CONVERT)  # fmt: skip
    yield _wrong("USER_ID without type (all null)", string, lambda: pa.nulls(COUNT), "null", "str", CONVERT)
    for what, name, kind in (
        ("USER_ID of large_string", "USER_ID", pa.large_string()),
        ("ITEM_ID of string_view", "ITEM_ID", pa.string_view()),
        ("USER_ID a categorical", "USER_ID", pa.dictionary(pa.int8(), pa.string())),
        ("ITEM_ID a categorical of large_string", "ITEM_ID", pa.dictionary(pa.int32(), pa.large_string())),
    ):
        yield Case(what=what, make=_with(name, _of(kind, name)), gets=AS_IT_IS)
    yield Case(
        what="ids of integers, with `ingest.cast_ids`",
        make=_file(
            lambda: table(USER_ID=_ids("USER_ID")(), ITEM_ID=_ids("ITEM_ID")()), ingest__cast_ids=True
        ),
        gets=Served("with the digits as ids", _numbered),
    )
    yield Case(
        what="a categorical of integers, with `ingest.cast_ids`",
        make=_with("USER_ID", lambda: _ids("USER_ID")().dictionary_encode(), ingest__cast_ids=True),
        gets=Served("with the digits as ids", _numbered),
    )
    yield Case(
        what="USER_ID of double, with `ingest.cast_ids`",
        make=_with("USER_ID", lambda: _ids("USER_ID")().cast(pa.float64()), ingest__cast_ids=True),
        gets=bad_data(f"FILE: column USER_ID is double, must be str: {CONVERT}", "validate"),
    )
    yield Case(
        what="a categorical with a null in it",
        make=_with("USER_ID", _categories_and_null),
        gets=Served(
            rejected=1, as_what="without that row", holds=lambda found: _only_lost(found, "is missing")
        ),
    )


def _categories_and_null() -> pa.Array:
    texts = column("USER_ID").to_pylist()
    return pa.array([None, *texts[1:]]).dictionary_encode()


def _only_lost(found: Any, reason: str) -> None:
    assert [row["reason"] for row in found.rejected] == [reason]
    assert found.users == {f"user {n:02d}" for n in range(20)}


def _outcomes_of_types() -> Iterator[Case]:
    name = "OUTCOME"
    yield _wrong("OUTCOME of string", name, _of(pa.string(), name), "string", "float", CONVERT)
    yield _wrong("OUTCOME of bool", name, lambda: pa.array([True] * COUNT), "bool", "float", CONVERT)
    yield _wrong(
        "OUTCOME a list", name, lambda: pa.array([[1.0]] * COUNT), "list<element: double>", "float", CONVERT
    )
    yield _wrong("OUTCOME a date-time", name, lambda: pa.array([T] * COUNT, pa.timestamp("us")), "timestamp[us]",
                 "float", CONVERT)  # fmt: skip
    for kind in (
        pa.float16(),
        pa.float32(),
        pa.int8(),
        pa.uint64(),
        pa.decimal128(5, 1),
        pa.decimal256(60, 3),
    ):
        yield Case(what=f"OUTCOME of {kind}", make=_with(name, _of(kind, name)), gets=AS_IT_IS)
    yield Case(
        what="OUTCOME a categorical of numbers",
        make=_with(name, lambda: column(name).dictionary_encode()),
        gets=AS_IT_IS,
    )


def _times_of_types() -> Iterator[Case]:
    name = "TIMESTAMP"
    yield _wrong(
        "TIMESTAMP as text",
        name,
        lambda: pa.array(["2024-01-01T00:00:00Z"] * COUNT),
        "string",
        "int",
        CONVERT,
    )
    yield _wrong("TIMESTAMP of double", name, _of(pa.float64(), name), "double", "int", CONVERT)
    yield _wrong(
        "TIMESTAMP of decimal", name, _of(pa.decimal128(21, 0), name), "decimal128(21, 0)", "int", CONVERT
    )
    yield _wrong("TIMESTAMP a time of day", name, lambda: pa.array([1] * COUNT, pa.time32("ms")), "time32[ms]", "int",
                 CONVERT)  # fmt: skip
    yield _wrong("TIMESTAMP a duration", name, lambda: pa.array([1] * COUNT, pa.duration("s")), "duration[s]", "int",
                 CONVERT)  # fmt: skip
    yield _wrong(
        "TIMESTAMP a struct", name, lambda: pa.array([{"s": T}] * COUNT), "struct<s: int64>", "int", CONVERT
    )
    for kind in (pa.int32(), pa.uint32(), pa.uint64()):
        yield Case(what=f"TIMESTAMP of {kind}", make=_with(name, _of(kind, name)), gets=AS_IT_IS)
    yield Case(
        what="TIMESTAMP of uint64 beyond int64",
        make=_with(name, lambda: pa.array([2**63 + 1] * COUNT, pa.uint64())),
        gets=bad_data(
            "FILE: TIMESTAMP: …9223372036854775809 not in range…: mend or leave out these values", "ingest"
        ),
    )
    for unit in ("ms", "us", "ns"):
        for zone in (None, "UTC", "America/New_York", "+05:30"):
            kind = pa.timestamp(unit, zone)
            usual = (unit, zone) in [
                ("ms", "America/New_York"),
                ("us", None),
                ("ns", "UTC"),
                ("us", "+05:30"),
            ]
            yield Case(
                what=f"TIMESTAMP of {kind}", make=_with(name, _seconds(kind)), gets=AS_IT_IS, slow=not usual
            )
    yield Case(
        what="TIMESTAMP in a zone that doesn't exist",
        make=_with(
            name, lambda: _seconds(pa.timestamp("us", "UTC"))().cast(pa.timestamp("us", "Mars/Phobos"))
        ),
        gets=Served("as the plain data: the moments are UTC, the zone is only how they are shown"),
    )
    yield Case(
        what="TIMESTAMP of INT96, as old Spark and Hive write it",
        make=_int96,
        gets=AS_IT_IS,
    )


def _int96(place: Place) -> None:
    kind = pa.timestamp("us", "UTC")
    place.write(table(TIMESTAMP=_seconds(kind)()), use_deprecated_int96_timestamps=True)


def _files_that_differ() -> Iterator[Case]:
    yield Case(
        what="files whose columns are in different orders",
        make=_files(table, lambda: table().select(list(reversed(COLUMNS)))),
        gets=AS_IT_IS,
    )
    yield Case(
        what="files of which one has columns more",
        make=_files(table, lambda: table(MORE=pa.nulls(COUNT))),
        gets=AS_IT_IS,
    )
    yield Case(
        what="files of which one lacks a column",
        make=_files(table, lambda: table(ITEM_ID=None)),
        gets=bad_data("FOLDER/data/b.parquet: missing column ITEM_ID", "ingest"),
    )
    yield Case(
        what="files with ids of text and of integers",
        make=_files(table, lambda: table(USER_ID=_ids("USER_ID")())),
        gets=bad_data(
            "FOLDER/data/b.parquet: USER_ID is int64, but string in FOLDER/data/a.parquet: make the files' types "
            "the same",
            "ingest",
        ),
    )
    yield Case(
        what="files with large_string and categoricals",
        make=_files(
            lambda: table(USER_ID=column("USER_ID").cast(pa.large_string())),
            lambda: table(USER_ID=column("USER_ID").dictionary_encode()),
        ),
        gets=AS_IT_IS,
    )
    yield Case(
        what="files with date-times of milliseconds and of nanoseconds",
        make=_files(
            lambda: table(TIMESTAMP=_seconds(pa.timestamp("ms"))()),
            lambda: table(TIMESTAMP=_seconds(pa.timestamp("ns", "UTC"))()),
        ),
        gets=Served("as the plain data, in the finest unit"),
    )
    yield Case(
        what="files with decimal and with float outcomes",
        make=_files(table, lambda: table(OUTCOME=column("OUTCOME").cast(pa.decimal128(4, 1)))),
        gets=AS_IT_IS,
    )
