"""Addresses with secrets, looked up by a name when they are needed and written down nowhere.

A source or a table may be `connection:ID`, with a query behind it: `connection:warehouse?table=recommendations`.
In Airflow the ID is that of a Connection; on the command line, of the environment variable
`SASREC_CONNECTION_<ID>`, which holds the address: `postgresql://user:password@host/database`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit, urlunsplit

from sasrec_tasks.errors import BadSettings

PREFIX = "connection:"
ID = re.compile(r"[A-Za-z0-9_.-]+")

Lookup = Callable[[str], str]
"""ID → address; raises KeyError if there is none of it."""


def of_environment(name: str) -> str:
    """The address in `SASREC_CONNECTION_<ID>`; what is not a letter or digit in the ID is `_` there."""
    return os.environ[variable(name)]


def variable(name: str) -> str:
    """Name of the environment variable of a connection."""
    return f"SASREC_CONNECTION_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"


_lookup: ContextVar[Lookup] = ContextVar("lookup", default=of_environment)


@contextmanager
def use(lookup: Lookup) -> Iterator[None]:
    """Look connections up by another way within this context."""
    token = _lookup.set(lookup)
    try:
        yield
    finally:
        _lookup.reset(token)


def is_postgres(address: str) -> bool:
    """Whether an address is that of a PostgreSQL database."""
    return address.startswith(("postgresql://", "postgres://"))


def resolve(url: str) -> str:
    """The address behind `connection:ID?…`, with its query added; any other URL as it is.

    Raises:
        BadSettings: there is no connection of this ID, or its address is no URL.
    """
    if not url.startswith(PREFIX):
        return url
    name, _, query = url.removeprefix(PREFIX).partition("?")
    if not ID.fullmatch(name):
        raise BadSettings(
            f"{url!r}: name a connection by letters, digits, `_`, `.` and `-`: connection:warehouse"
        )
    try:
        address = _lookup.get()(name)
    except KeyError as error:
        raise BadSettings(
            f"{url!r}: there is no connection {name!r}: make one in Airflow (Admin → Connections), "
            f"or on the command line set {variable(name)}"
        ) from error
    try:
        parts = urlsplit(address)
        _ = parts.port  # of `user:pa/ss@host` it would be `pa`
    except ValueError:
        raise BadSettings(
            f"{url!r}: the address of the connection {name!r} is no URL: in a password, write what is no "
            "letter or digit as in %2F for /"
        ) from None  # what it repeats is a part of the password
    return urlunsplit((*parts[:3], "&".join(filter(None, (parts.query, query))), ""))
