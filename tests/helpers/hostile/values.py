"""Values that are no ids, no outcomes or no times, and ids that others would trip over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from hostile.case import Case, Found, Given, Place, Served, bad_data
from hostile.data import COLUMNS, Row, T, rows, table

SPOILT = len(rows()) - 1  # the row that is spoilt: the last user's last event
LAST = "user 19"


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _no_values()
    yield from _odd_ids()
    yield from _ids_that_look_alike()
    yield from _numbers_as_ids()
    yield from _outcomes()


def _one(column: str, value: Any) -> Callable[[Place], None]:
    """The plain data and one spoilt row more, in the middle."""

    def make(place: Place) -> None:
        spoilt: dict[str, Any] = dict(zip(COLUMNS, rows()[0], strict=True)) | {column: value}
        events = rows()
        events.insert(80, tuple(spoilt[name] for name in COLUMNS))
        place.write(table(events))

    return make


def _all(column: str, value: Any) -> Callable[[Place], None]:
    """The plain data with the same value in each row."""

    def make(place: Place) -> None:
        place.write(
            table([tuple({**dict(zip(COLUMNS, row, strict=True)), column: value}.values()) for row in rows()])
        )

    return make


def _aside(column: str, reason: str) -> Served:
    def holds(found: Found) -> None:
        assert [(row["row"], row["column"], row["reason"]) for row in found.rejected] == [
            (80, column, reason)
        ]
        assert found.rows.drop_columns(["RUN_ID", "AS_OF"]).equals(
            found.plain.drop_columns(["RUN_ID", "AS_OF"])
        )

    return Served("as the data without that row", holds, rejected=1)


NAMES = {None: "null", "": "empty"}


def _no_values() -> Iterator[Case]:
    nul = "has a NUL character, which databases don't take"
    bad: list[tuple[str, str, Any, str]] = [
        ("USER_ID", "null", None, "is missing"),
        ("ITEM_ID", "null", None, "is missing"),
        ("OUTCOME", "null", None, "is missing"),
        ("TIMESTAMP", "null", None, "is missing"),
        ("USER_ID", "empty", "", "is empty"),
        ("ITEM_ID", "empty", "", "is empty"),
        ("USER_ID", "NUL", "user\0 00", nul),
        ("ITEM_ID", "NUL", "\0", nul),
        ("OUTCOME", "NaN", float("nan"), "is not a finite number"),
        ("OUTCOME", "infinite", float("inf"), "is not a finite number"),
        ("OUTCOME", "minus infinite", float("-inf"), "is not a finite number"),
        ("OUTCOME", "1e300, which is infinite in float32", 1e300, "is not a finite number"),
        ("TIMESTAMP", "negative (1969)", -1, "is not a time (before 1970)"),
        ("TIMESTAMP", "the least int64", -(2**63), "is not a time (before 1970)"),
    ]
    for column, what, value, reason in bad:
        yield Case(
            what=f"{column} {what} in one row of 161", make=_one(column, value), gets=_aside(column, reason)
        )
        yield Case(
            what=f"{column} {what} in all rows",
            make=_all(column, value),
            gets=bad_data(
                f"FILE: all 160 rows are rejected, nothing is left: {column} {reason} (160 rows, for instance snapshot "
                "row 0 (of FILE): …",
                "validate",
            ),
        )
    yield Case(
        what="two spoilt rows of 160, more than `validate.max_rejected_share`",
        make=lambda place: place.write(table([(None, "x", 1.0, T), ("", "x", 1.0, T), *rows()[2:]])),
        gets=bad_data(
            "FILE: 2 of 160 rows are rejected, more than validate.max_rejected_share=0.01: USER_ID is missing (1 rows, "
            "for instance snapshot row 0 (of FILE): null); USER_ID is empty (1 rows, for instance snapshot row 1",
            "validate",
        ),
    )
    yield Case(
        what="text that is not UTF-8",
        make=lambda place: place.write(table(ITEM_ID=_bytes(b"\xff\xfe", *[b"ok"] * 159))),
        gets=bad_data("FILE: ITEM_ID: …UTF8…: mend or leave out these values in the source", "ingest"),
    )
    yield Case(
        what="a lone surrogate (`ED A0 80`)",
        make=lambda place: place.write(table(USER_ID=_bytes(b"\xed\xa0\x80", *[b"ok"] * 159))),
        gets=bad_data("FILE: USER_ID: …UTF8…: mend or leave out these values in the source", "ingest"),
    )
    yield Case(
        what="a categorical one of whose categories is not UTF-8",
        make=lambda place: place.write(table(USER_ID=_bytes(b"\xff", *[b"ok"] * 159).dictionary_encode())),
        gets=bad_data("FILE: USER_ID: …UTF8…: mend or leave out these values in the source", "ingest"),
    )


def _bytes(*values: bytes) -> pa.Array:
    """Bytes that claim to be text."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


ODD = {
    "a blank": " ",
    "blanks around": "  user  ",
    "a tab": "\t",
    "a line break": "a\nb",
    "a carriage return": "a\r\n",
    "quotes": "'\"`",
    "a backslash": "\\",
    "a comma": "a,b",
    "SQL": "'; DROP TABLE recommendations; --",
    "HTML": "<script>alert(1)</script>",
    "a path": "../../../../etc/passwd",
    "a formula": "=cmd|'/c calc'!A1",
    "a template": "{{ 7 * 7 }}${jndi:ldap://x/y}%(x)s",
    "a URL with an escape": "file:///etc/passwd%00",
    "an emoji of several code points": "👩\u200d👩\u200d👧",
    "text from right to left": "\u202eabc",
    "a byte order mark": "\ufeffuser",
    "a zero width space": "\u200b",
    "control characters": "\x01\x1b[31m\x7f",
    "a private character": "\U0010fffd",
    "the text null": "null",
    "the text None": "None",
    "the text NaN": "nan",
    "Hive's name of null": "__HIVE_DEFAULT_PARTITION__",
    "10,000 characters": "x" * 10_000,
    "a megabyte": "x" * 2**20,
}

RARE = ("blanks around", "a carriage return", "a backslash", "a comma", "a template", "a byte order mark",
        "a zero width space", "a private character", "the text None", "the text NaN", "10,000 characters")  # fmt: skip
"""Of these, what the usual run leaves to `make test-faults`."""


def _odd_ids() -> Iterator[Case]:
    for what, text in ODD.items():
        yield Case(
            what=f"{what} as USER_ID and as ITEM_ID",
            make=_renamed(text),
            gets=Served("with the id as it came in", _keeps(text)),
            slow=what in RARE,
        )


def _renamed(text: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.write(table([_with_id(row, text) for row in rows()]))

    return make


def _with_id(row: Row, text: str) -> Row:
    user, item, outcome, time = row
    return text if user == "user 07" else user, text if item == "item 05" else item, outcome, time


def _keeps(text: str) -> Callable[[Found], None]:
    def holds(found: Found) -> None:
        users = {f"user {n:02d}" for n in range(20)} - {"user 07"} | {text}
        items = {f"item {n:02d}" for n in range(12)} - {"item 05"} | {text}
        assert (found.users, found.items) == (users, items)
        assert found.summaries["export"]["rows"] == len(found.rows)

    return holds


def _ids_that_look_alike() -> Iterator[Case]:
    for what, alike in {
        "the same after Unicode's normalisation (é)": ("\u00e9", "e\u0301"),
        "the same but for case": ("Ann", "ann", "ANN"),
        "the same but for a blank": ("ann", "ann ", " ann"),
        "the same to the eye (Latin, Cyrillic)": ("a", "\u0430"),
        "the same number in digits (1, 01, 1.0)": ("1", "01", "1.0"),
        "the same but for an invisible character": ("ann", "ann\u200b", "\ufeffann"),
        "the same but for the last of 1,000 characters": ("x" * 999 + "a", "x" * 999 + "b"),
    }.items():
        yield Case(
            what=f"USER_IDs that are {what}",
            make=lambda place, alike=alike: _alike(place, alike),  # type: ignore[misc]
            gets=Served("as users of their own", lambda found, alike=alike: _each(found, alike)),  # type: ignore[misc]
        )


def _alike(place: Place, ids: tuple[str, ...]) -> None:
    names = {f"user {n:02d}": text for n, text in enumerate(ids)}
    place.write(table([(names.get(row[0], row[0]), *row[1:]) for row in rows()]))


def _each(found: Found, ids: tuple[str, ...]) -> None:
    assert set(ids) <= found.users
    assert len(found.users) == 20
    assert found.summaries["split"]["events"] == 160


def _numbers_as_ids() -> Iterator[Case]:
    beyond = 2**53
    yield Case(
        what="integer ids beyond 2⁵³, with `ingest.cast_ids`",
        make=lambda place: _numbers(place, {0: beyond, 1: beyond + 1, 2: 2**63 - 1, 3: -(2**63)}, pa.int64()),
        gets=Served(
            "each as its own digits", lambda found: _have(found, beyond, beyond + 1, 2**63 - 1, -(2**63))
        ),
    )
    yield Case(
        what="uint64 ids beyond int64, with `ingest.cast_ids`",
        make=lambda place: _numbers(place, {0: 2**64 - 1, 1: 2**64 - 2}, pa.uint64()),
        gets=Served("each as its own digits", lambda found: _have(found, 2**64 - 1, 2**64 - 2)),
    )
    yield Case(
        what='"1" in one file and 1 in another, with `ingest.cast_ids`',
        make=_text_and_number,
        gets=Served("as one user", lambda found: _one_of_both(found)),
    )
    yield Case(
        what='"1" in one file and 1.0 in another, with `ingest.cast_ids`',
        make=lambda place: _text_and_number(place, pa.float64()),
        gets=bad_data(
            "FOLDER/data/b.parquet: USER_ID is double, but string in FOLDER/data/a.parquet: make the files' types "
            "the same",
            "ingest",
        ),
    )


def _numbers(place: Place, names: dict[int, int], kind: pa.DataType) -> Given:
    users = [int(row[0][-2:]) for row in rows()]
    place.write(table(USER_ID=pa.array([names.get(user, user) for user in users], kind)))
    return {"ingest.cast_ids": True}


def _have(found: Found, *numbers: int) -> None:
    assert {str(number) for number in numbers} <= found.users
    assert len(found.users) == 20


def _text_and_number(place: Place, kind: pa.DataType | None = None) -> Given:
    users = pa.array([int(row[0][-2:]) % 10 for row in rows()], kind or pa.int64())
    place.write(table(USER_ID=users.cast(pa.int64()).cast(pa.string())).slice(0, 80), "data/a.parquet")
    place.write(table(USER_ID=users).slice(80), "data/b.parquet")
    return {"source": f"{place.folder}/data", "ingest.cast_ids": True}


def _one_of_both(found: Found) -> None:
    assert found.users == {str(number) for number in range(10)}


def _outcomes() -> Iterator[Case]:
    for what, value in {
        "minus zero": -0.0,
        "negative": -1e6,
        "the least denormal": 5e-324,
        "the largest of float32": 3.4e38,
    }.items():
        yield Case(
            what=f"OUTCOME {what} in all rows", make=_all("OUTCOME", value), gets=Served("as implicit events")
        )
    yield Case(
        what="OUTCOME 2⁵³ + 1 as integers",
        make=lambda place: place.write(table(OUTCOME=pa.array([2**53 + 1] * 160))),
        gets=Served("as implicit events, the number as float64 has it"),
    )
