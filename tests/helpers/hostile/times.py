"""Times in other units, zones and calendars than one thinks, and at the ends of what types hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from hostile.case import Case, Found, Given, Place, Served, bad_data, bad_settings
from hostile.data import PAIRS, T, rows, table

AS_IT_IS = Served("as the plain data")


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _units()
    yield from _ends()
    yield from _calendar()
    yield from _moments()


def _times(
    of: Callable[[int, int], Any], kind: pa.DataType | None = None, **settings: Any
) -> Callable[[Place], Given]:
    """The plain data with other times.

    Args:
        of: number of a row, and its seconds → what stands there.
    """

    def make(place: Place) -> Given:
        times = pa.array([of(number, row[3]) for number, row in enumerate(rows())], kind or pa.int64())
        place.write(table(TIMESTAMP=times))
        return {name.replace("__", "."): value for name, value in settings.items()}

    return make


def _units() -> Iterator[Case]:
    for unit, scale in (("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        yield Case(
            what=f"integers of {unit}",
            make=_times(lambda _, seconds, scale=scale: seconds * scale),  # type: ignore[misc]
            gets=AS_IT_IS,
        )
        yield Case(
            what=f"integers of {unit}, with `ingest.timestamp_unit=s`",
            make=_times(lambda _, s, scale=scale: s * scale, ingest__timestamp_unit="s"),  # type: ignore[misc]
            gets=bad_data(
                "FILE: all 160 rows are at or after as_of (2026-01-01T00:00:00+00:00): check as_of, and "
                "ingest.timestamp_unit (taken as 's')",
                "ingest",
            ),
        )
    yield Case(
        what="integers of seconds, with `ingest.timestamp_unit=ms`",
        make=_times(lambda _, seconds: seconds, ingest__timestamp_unit="ms"),
        gets=Served("as the plain data: the setting is taken at its word, and the order stays"),
    )
    yield Case(
        what="seconds in one half of the rows and milliseconds in the other",
        make=_times(lambda number, seconds: seconds * (1000 if number % 2 else 1)),
        gets=bad_data(
            "TIMESTAMP: 80 of 160 rows are in another unit than …, as the others are: …: make them the same, or set "
            "ingest.timestamp_unit to have all in one",
            "ingest",
        ),
    )
    yield Case(
        what="milliseconds, and seconds in two rows of 160",
        make=_times(lambda number, seconds: seconds if number < 2 else seconds * 1000),
        gets=bad_data(
            f"TIMESTAMP: 2 of 160 rows are in another unit than 'ms', as the others are: {T} (in FILE) looks like 's'",
            "ingest",
        ),
    )
    yield Case(
        what="a file of seconds and one of milliseconds",
        make=_two_files,
        gets=bad_data(
            "FOLDER/data/b.parquet: TIMESTAMP looks like 'ms', but 's' in FOLDER/data/a.parquet: make them the same, "
            "or set ingest.timestamp_unit",
            "ingest",
        ),
    )


def _two_files(place: Place) -> Given:
    place.write(table(rows()[:80]), "data/a.parquet")
    place.write(table([(*row[:3], row[3] * 1000) for row in rows()[80:]]), "data/b.parquet")
    return {"source": f"{place.folder}/data"}


def _served(events: int, left_out: int = 0) -> Callable[[Found], None]:
    def holds(found: Found) -> None:
        assert found.summaries["split"]["events"] == events
        assert found.summaries["ingest"]["rows_at_or_after_as_of"] == left_out
        assert len(found.users) == 20

    return holds


def _ends() -> Iterator[Case]:
    yield Case(
        what="all times 0 (1970-01-01)",
        make=_times(lambda number, _: 0),
        gets=Served("in the order of the rows; of a user's events with one item one is left", _served(PAIRS)),
    )
    yield Case(
        what="times of January 1970",
        make=_times(lambda number, seconds: seconds - T),
        gets=AS_IT_IS,
    )
    yield Case(
        what="dates of before 1970 in one row",
        make=_times(
            lambda number, s: (
                datetime(1969, 12, 31)
                if number == 159
                else datetime.fromtimestamp(s, UTC).replace(tzinfo=None)
            ),
            pa.timestamp("us"),
        ),
        gets=Served("without that row", _served(159), rejected=1),
    )
    yield Case(
        what="one event of the year 2262, the last that nanoseconds hold",
        make=_times(
            lambda number, seconds: 2**63 - 1 if number == 159 else seconds * 10**9, pa.timestamp("ns")
        ),
        gets=Served("without that event, which is after as_of", _served(159, 1)),
    )
    yield Case(
        what="one event at the last int64",
        make=_times(lambda number, seconds: 2**63 - 1 if number == 159 else seconds),
        gets=Served("without that event, which is after as_of", _served(159, 1)),
    )
    yield Case(
        what="as_of of the year 9999, and events of 2262 in nanoseconds",
        make=_times(
            lambda number, seconds: 2**63 - 2 if number == 159 else seconds * 10**9,
            pa.timestamp("ns"),
            as_of="9999-12-31T23:59:59",
        ),
        gets=Served("with that event", _served(160)),
    )
    yield Case(
        what="an event of the year 30,000 in a file of seconds, beside one of nanoseconds",
        make=_beyond,
        gets=bad_data("FOLDER/data/b.parquet: TIMESTAMP: …would result in out of bounds timestamp", "ingest"),
    )
    yield Case(
        what="all events after as_of",
        make=_times(lambda _, seconds: seconds + 10**9),
        gets=bad_data("FILE: all 160 rows are at or after as_of", "ingest"),
    )
    yield Case(
        what="one event a second after as_of",
        make=_times(lambda number, seconds: 1_767_225_601 if number == 159 else seconds),
        gets=Served("without it", _served(159, 1)),
    )


def _beyond(place: Place) -> Given:
    ns = pa.array([row[3] * 10**9 for row in rows()[:159]], pa.timestamp("ns"))
    place.write(table(rows()[:159], TIMESTAMP=ns), "data/a.parquet")
    ms = pa.array([884_541_340_800_000], pa.timestamp("ms"))
    place.write(table(rows()[159:], TIMESTAMP=ms), "data/b.parquet")
    return {"source": f"{place.folder}/data"}


def _hours_from(start: datetime, kind: pa.DataType) -> Callable[[Place], Given]:
    """Each user's events, an hour after another, from a moment on."""
    return _times(lambda number, _: start + timedelta(hours=number % 8, seconds=number // 8), kind)


def _calendar() -> Iterator[Case]:
    us = pa.timestamp("us", "UTC")
    york = pa.timestamp("us", "America/New_York")
    yield Case(
        what="events over the hour that is twice, as New York's clocks go back",
        make=_hours_from(datetime(2024, 11, 3, 3, tzinfo=UTC), york),
        gets=Served("as the plain data: a zoned time is a moment, each hour of its own"),
    )
    yield Case(
        what="events over the hour that is not there, as New York's clocks go forward",
        make=_hours_from(datetime(2024, 3, 10, 5, tzinfo=UTC), york),
        gets=Served("as the plain data: a zoned time is a moment"),
    )
    yield Case(
        what="times without a zone, over such an hour",
        make=_hours_from(datetime(2024, 3, 31, 1), pa.timestamp("us")),
        gets=Served("as the plain data: a time without a zone is UTC"),
    )
    yield Case(
        what="events of a leap day, and over its ends",
        make=_hours_from(datetime(2024, 2, 28, 20, tzinfo=UTC), us),
        gets=AS_IT_IS,
    )
    yield Case(
        what="a leap second's time as a clock shows it (23:59:59 twice)",
        make=_times(lambda number, _: 1_483_228_799 + number // 80),
        gets=Served("in the order of the rows; of a user's events with one item one is left", _served(PAIRS)),
    )
    yield Case(
        what="a look-back from a leap day over a month",
        make=_times(
            lambda number, _: datetime(2028, 2, 28, tzinfo=UTC) + timedelta(minutes=number),
            us,
            as_of="2028-02-29",
            ingest__lookback_days=29,
        ),
        gets=Served("with all events of those days", _served(160)),
    )
    yield Case(
        what="`{date}` over a leap day",
        make=_a_file_a_day,
        gets=Served("with a file of 02-28, one of 02-29 and one of 03-01", _served(160)),
    )


def _a_file_a_day(place: Place) -> Given:
    for day, part in (
        ("2028-02-28", slice(0, 60)),
        ("2028-02-29", slice(60, 110)),
        ("2028-03-01", slice(110, 160)),
    ):
        first = int(datetime.fromisoformat(f"{day}T00:00+00:00").timestamp())
        events = [(*row[:3], first + number) for number, row in enumerate(rows()[part])]
        place.write(table(events), f"{day}.parquet")
    return {
        "source": f"{place.folder}/{{date}}.parquet",
        "as_of": "2028-03-02",
        "ingest.lookback_days": 3,
    }


def _moments() -> Iterator[Case]:
    def of(**settings: Any) -> Callable[[Place], Given]:
        return _times(lambda _, seconds: seconds, **settings)

    for as_of in ("2026-01-01T05:30:00+05:30", "2025-12-31T19:00:00-05:00", "2026-01-01T00:00:00Z"):
        yield Case(what=f"`as_of={as_of}`", make=of(as_of=as_of), gets=Served("as of 2026-01-01 UTC"))
    for as_of, said in {
        "yesterday": "input should be a valid datetime or date, input is too short",
        "2026-02-29": "…day value is outside expected range",
        "2026-13-01": "…month value is outside expected range of 1-12",
        "2026-01-01T25:00": "input should be a valid datetime or date, unexpected extra characters",
        "2026-01-01T00:00:00+99:00": "input should be a valid datetime or date, unexpected extra characters",
        "0001-01-01T00:00:00+05:00": "lies outside the years 1 to 9999 in UTC",
        "20260101": "is a number: write the moment as in 2026-01-31",
        "1767225600": "is a number: write the moment as in 2026-01-31",
        "": "…input is too short",
    }.items():
        yield Case(
            what=f"`as_of={as_of}`",
            make=of(as_of=as_of),
            gets=bad_settings(f"as_of={as_of!r}: {said}"),
        )
    yield Case(
        what="`as_of` of the year 1",
        make=of(as_of="0001-01-01"),
        gets=bad_data("FILE: all 160 rows are at or after as_of (0001-01-01T00:00:00+00:00)", "ingest"),
    )
    yield Case(
        what="a look-back to before the year 1",
        make=of(as_of="0100-01-01", ingest__lookback_days=100_000),
        gets=bad_settings("ingest.lookback_days=100000.0: begins before the year 1", "ingest"),
    )
    yield Case(
        what="a look-back of a microsecond",
        make=of(ingest__lookback_days=1e-11),
        gets=bad_data("FILE: all 160 rows are at or after as_of (…) or before the look-back", "ingest"),
    )
    yield Case(
        what="`data_interval_start` after `as_of`, in a path",
        make=lambda place: {
            "source": f"{place.folder}/{{data_interval_start}}.parquet",
            "data_interval_start": "2027-01-01",
        },
        gets=bad_settings("data_interval_start (2027-01-01T00:00:00+00:00) is later than as_of", "ingest"),
    )
