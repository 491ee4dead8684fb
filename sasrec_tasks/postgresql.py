"""What tables, sources and consumers in PostgreSQL share: how an address names a table, and a transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs
from sasrec_tasks.naming import SECRET


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
        raise OSError(f"{shown}: {said(error, uri)}") from None  # a log would show its text, too


def said(error: Exception, address: str) -> str:
    """What a database or its driver says, in one line, without the secrets of the address.

    libpq repeats what it can't read of an address, a part of a password for instance in which a `/` is not escaped.
    """
    text = " ".join(str(error).split())
    for secret in _secrets(address):
        text = text.replace(secret, "…")
    return text


SHORTEST = 3
"""Characters of a part of a password; shorter ones would take letters out of every word."""


def _secrets(address: str) -> list[str]:
    """Secrets of an address, as they stand there and as they are meant, and the parts that they may be taken for."""
    head, _, query = address.partition("?")
    secrets = re.findall(r"://[^/?#@:]*:(.*)@", head) or re.findall(r"://[^/?#@:]*:(.*)@", address)
    for pair in re.split(r"[?&]", query):
        name, _, value = pair.partition("=")
        if SECRET.search(name):
            secrets.append(value)
    parts = {part for secret in secrets for part in (secret, *re.split(r"[:/?#@\[\]%&= ]", secret))}
    parts |= {unquote(part) for part in parts}
    return sorted((part for part in parts if len(part) >= SHORTEST), key=len, reverse=True)
