"""Sources whose path names days: `events/{date:%Y/%m/%d}/*.parquet`, or the run: `exports/{as_of:%Y-%m-%d}/`."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from sasrec_tasks.errors import BadSettings

FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")


def is_template(source: str) -> bool:
    """Whether a source has fields in braces."""
    return FIELD.search(source) is not None


def expanded(source: str, *, as_of: datetime, since: datetime | None) -> list[tuple[date | None, str]]:
    """The sources that a template stands for, and the day that each is of.

    Args:
        source: with `{date}`, each day from ``since`` on that had ended by ``as_of``, or `{as_of}`; both take a format
            as `strftime` does, and are ISO 8601 without one.

    Raises:
        BadSettings: an unknown field, or `{date}` without a look-back.
    """
    names = {name for name, _ in FIELD.findall(source)}
    if unknown := names - {"date", "as_of"}:
        raise BadSettings(
            f"source={source!r}: {{{min(unknown)}}} is unknown: there are {{date}} and {{as_of}}, "
            "each with a format if need be: {date:%Y-%m-%d}"
        )
    if "date" not in names:
        return [(None, _filled(source, as_of=as_of))]
    if since is None:
        raise BadSettings(
            f"source={source!r}: {{date}} stands for each day of the look-back: set ingest.lookback_days"
        )
    days = [since.date() + timedelta(days=n) for n in range((as_of.date() - since.date()).days)]
    return [(day, _filled(source, date=day, as_of=as_of)) for day in days]


def _filled(source: str, **values: date) -> str:
    def one(field: re.Match[str]) -> str:
        value = values[field[1]]
        return value.strftime(field[2]) if field[2] else value.isoformat()

    return FIELD.sub(one, source)
