"""Places whose path names days: `events/{date:%Y/%m/%d}/*.parquet`, or the run's data interval:
`exports/{data_interval_end:%Y-%m-%d}/`.

`as_of` is the end of the data interval, so `{as_of}` and `{data_interval_end}` are the same moment.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from sasrec_tasks.errors import BadSettings

FIELD = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
NAMES = ("date", "as_of", "data_interval_start", "data_interval_end")


def is_template(place: str) -> bool:
    """Whether a place has fields in braces."""
    return FIELD.search(place) is not None


def names_days(place: str) -> bool:
    """Whether a place stands for one of each day of the look-back."""
    return "date" in _names(place)


def expanded(
    place: str,
    *,
    as_of: datetime,
    since: datetime | None,
    data_interval_start: datetime | None = None,
    setting: str = "source",
) -> list[tuple[date | None, str]]:
    """The places that a template stands for, and the day that each is of.

    Args:
        place: with `{date}`, each day from ``since`` on that had ended by ``as_of``; `{data_interval_start}`,
            `{data_interval_end}` or `{as_of}`. All take a format as `strftime` does, and are ISO 8601 without one.
        setting: what names the place, for messages.

    Raises:
        BadSettings: an unknown field, `{date}` without a look-back, or `{data_interval_start}` in a run that has none.
    """
    names = _names(place)
    if unknown := names - set(NAMES):
        raise BadSettings(
            f"{setting}={place!r}: {{{min(unknown)}}} is unknown: there are "
            f"{', '.join(f'{{{name}}}' for name in NAMES)}, each with a format if need be: {{date:%Y-%m-%d}}"
        )
    moments: dict[str, date] = {"as_of": as_of, "data_interval_end": as_of}
    if "data_interval_start" in names:
        moments["data_interval_start"] = _start(data_interval_start, as_of, f"{setting}={place!r}")
    if "date" not in names:
        return [(None, _filled(place, moments))]
    if since is None:
        raise BadSettings(
            f"{setting}={place!r}: {{date}} stands for each day of the look-back: set ingest.lookback_days"
        )
    days = [since.date() + timedelta(days=n) for n in range((as_of.date() - since.date()).days)]
    return [(day, _filled(place, {**moments, "date": day})) for day in days]


def _start(start: datetime | None, as_of: datetime, where: str) -> datetime:
    if start is None:
        raise BadSettings(
            f"{where}: this run has no data interval, as Airflow did not start it: set the "
            "setting data_interval_start, for instance data_interval_start=2026-01-31T02:00"
        )
    if start > as_of:
        raise BadSettings(
            f"{where}: data_interval_start ({start.isoformat()}) is later than as_of ({as_of.isoformat()}), the "
            "interval's end: set an earlier one"
        )
    return start


def _names(place: str) -> set[str]:
    return {name for name, _ in FIELD.findall(place)}


def _filled(place: str, values: dict[str, date]) -> str:
    def one(field: re.Match[str]) -> str:
        value = values[field[1]]
        return value.strftime(field[2]) if field[2] else value.isoformat()

    return FIELD.sub(one, place)
