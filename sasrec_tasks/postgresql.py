"""What tables, sources and consumers in PostgreSQL share: how an address names a table, and a transaction.

No server is waited for without end. What the network has lost is noticed by keepalives. And what a server does not
answer is given up: the driver waits in C, where neither Airflow's time limit nor SIGTERM is heeded, and so each of its
calls is made in a thread beside, while this one looks at signals and at the clock.
"""

from __future__ import annotations

import contextvars
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import pyarrow as pa

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs
from sasrec_tasks.naming import SECRET

T = TypeVar("T")

SILENCE = 1800.0
"""Seconds that a statement may take, or that may lie between two batches of rows, before the server counts as gone; the
longest statement is that which makes the index of a publish."""

CANCELLED = 2.0
"""Seconds that a call which is given up has to come to its end."""

LIMITS = {
    "connect_timeout": "30",  # seconds, of each host
    "keepalives_idle": "60",  # seconds without traffic until the other side is asked
    "keepalives_interval": "10",  # seconds between questions
    "keepalives_count": "6",  # questions without an answer: the connection is lost
    "tcp_user_timeout": "120000",  # milliseconds that what was sent may stay without a receipt
}
"""libpq's own defaults are none, and the system's: hours. What an address says itself stays."""

OF_THE_SERVER = (
    "SELECT set_config('lock_timeout', '600s', true), set_config('tcp_keepalives_idle', '60', true),"
    " set_config('tcp_keepalives_interval', '10', true), set_config('tcp_keepalives_count', '6', true)"
)
"""Of a transaction that takes locks: how long it waits for one, and when a client that is lost gives back its own."""


def split_table(address: str) -> tuple[str, str]:
    """`postgresql://…?table=name&…` → libpq's part of it, and the name, "" if there is none."""
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = query.pop("table", "")
    return urlunsplit((*parts[:3], urlencode(query), "")), name


def with_limits(uri: str) -> str:
    """A URI whose connection does not wait without end for what is lost."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {"connect_timeout"} if "PGCONNECT_TIMEOUT" in os.environ else set()
    limits = {name: value for name, value in LIMITS.items() if name not in own}
    return urlunsplit((*parts[:3], urlencode(limits | query), ""))


_stuck: list[Any] = []
"""Cursors whose call has not ended: the driver closes what is thrown away, which would wait, too."""


class Cursor:
    """A cursor of the driver whose calls come to an end, whatever becomes of the server."""

    def __init__(self, connect: Callable[[], Any], shown: str) -> None:
        self._shown = shown
        self._given_up = False
        self._is_stuck = False  # a call has not ended yet: the connection is nobody else's
        self._last_move = time.monotonic()
        self._cursor: Any = None
        self._connection = self._call(connect)
        self._cursor = self._call(self._connection.cursor)

    def execute(self, statement: str, parameters: Any = None) -> None:
        """Execute a statement."""
        self._call(self._cursor.execute, statement, parameters)

    def adbc_ingest(self, table: str, rows: pa.RecordBatchReader | pa.Table, **how: Any) -> None:
        """Copy rows into a table; see ADBC."""
        reader = rows if isinstance(rows, pa.RecordBatchReader) else rows.to_reader()
        watched = pa.RecordBatchReader.from_batches(reader.schema, self._moving(reader))
        self._call(self._cursor.adbc_ingest, table, watched, **how)

    def fetchone(self) -> Any:
        """The next row of the last statement, None if there is none."""
        return self._call(self._cursor.fetchone)

    def fetch_arrow_table(self) -> pa.Table:
        """All rows of the last statement."""
        return self._call(self._cursor.fetch_arrow_table)

    def fetch_record_batch(self) -> pa.RecordBatchReader:
        """The rows of the last statement, as they come in."""
        reader = self._call(self._cursor.fetch_record_batch)

        def batches() -> Iterator[pa.RecordBatch]:
            while True:
                try:
                    yield self._call(reader.read_next_batch)
                except StopIteration:
                    return

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def commit(self) -> None:
        """Commit the transaction."""
        self._call(self._connection.commit)

    def rollback(self) -> None:
        """Undo what was not committed."""
        self._call(self._connection.rollback)

    def close(self) -> None:
        """Close the connection, unless a call has not ended yet: then it is closed when its process ends."""
        if not self._is_stuck:
            self._call(self._cursor.close)
            self._call(self._connection.close)

    def _call(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Make a call in a thread beside.

        Raises:
            OSError: it has not come to an end, nor moved, for `SILENCE` seconds.
        """
        if self._is_stuck:
            raise OSError(f"{self._shown}: the connection was given up")
        outcome: Future[T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                outcome.set_result(context.run(call, *arguments, **named))
            except BaseException as error:
                outcome.set_exception(error)
            if self._is_stuck:  # it has come to its end after all
                with suppress(Exception):
                    self._cursor.close()
                    self._connection.close()
                    _stuck.remove(self)

        self._last_move = time.monotonic()
        try:
            threading.Thread(target=work, name="database", daemon=True).start()
            while not wait([outcome], max(0.0, self._last_move + SILENCE - time.monotonic())).done:
                if time.monotonic() - self._last_move >= SILENCE:
                    raise OSError(
                        f"{self._shown}: the database has not answered for {SILENCE:g} s: it is given up, another try "
                        "begins anew"
                    )
        except BaseException:  # a signal, too
            self._give_up(outcome)
            raise
        return outcome.result()

    def _give_up(self, outcome: Future[Any]) -> None:
        self._given_up = True
        if self._cursor is not None:  # what cancels asks the server, and may wait itself
            threading.Thread(target=self._cancel, name="database, cancel", daemon=True).start()
        self._is_stuck = not wait([outcome], CANCELLED).done
        if self._is_stuck:
            _stuck.append(self)

    def _cancel(self) -> None:
        with suppress(Exception):
            self._cursor.adbc_cancel()

    def _moving(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in rows:
            self._last_move = time.monotonic()
            if self._given_up:
                raise OSError(f"{self._shown}: the connection was given up")
            yield batch


@contextmanager
def connected(uri: str, shown: str) -> Iterator[Cursor]:
    """A cursor in a transaction, which is undone unless it was committed; errors are the driver's.

    Args:
        shown: what messages name instead of the URI.

    Raises:
        BadSettings: the driver is not installed.
        OSError: the database doesn't answer.
    """
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise BadSettings(f"{shown}: {needs('adbc_driver_postgresql')}") from error
    cursor = Cursor(lambda: dbapi.connect(with_limits(uri)), shown)
    try:
        yield cursor
        cursor.rollback()
    except BaseException:
        with suppress(Exception):  # why it failed matters more
            cursor.rollback()
        raise
    finally:
        with suppress(Exception):
            cursor.close()


@contextmanager
def transaction(uri: str, shown: str) -> Iterator[Cursor]:
    """As `connected`, whose errors are OSErrors.

    Raises:
        BadSettings: the driver is not installed.
        OSError: the database can't be reached, doesn't answer, or says no.
    """
    try:
        from adbc_driver_manager import Error
    except ImportError as error:
        raise BadSettings(f"{shown}: {needs('adbc_driver_postgresql')}") from error
    try:
        with connected(uri, shown) as cursor:
            yield cursor
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
