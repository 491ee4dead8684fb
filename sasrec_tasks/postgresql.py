"""What tables, sources and consumers in PostgreSQL share: how an address names a table, and a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs


def split_table(address: str) -> tuple[str, str]:
    """`postgresql://…?table=name&…` → libpq's part of it, and the name, "" if there is none."""
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = query.pop("table", "")
    return urlunsplit((*parts[:3], urlencode(query), "")), name


@contextmanager
def transaction(uri: str, shown: str) -> Iterator[Any]:
    """A cursor in a transaction, which is undone unless it was committed.

    Args:
        shown: what messages name instead of the URI.

    Raises:
        BadSettings: the driver is not installed.
        OSError: the database can't be reached, or says no.
    """
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise BadSettings(f"{shown}: {needs('adbc_driver_postgresql')}") from error
    try:
        with dbapi.connect(uri) as connection, connection.cursor() as cursor:
            try:
                yield cursor
            finally:
                connection.rollback()
    except Error as error:
        raise OSError(f"{shown}: {' '.join(str(error).split())}") from error
